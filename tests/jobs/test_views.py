"""The pages of fine-tunes: from the file to the draft version, what they show, and to whom."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import AsyncClient, Client
from django.urls import reverse

from store import valkey
from store.accounts.models import User
from store.catalog.models import Version
from store.jobs import claims
from store.jobs.models import Job, UploadedFile
from tests.jobs.test_finetunes import BAD, GOOD, LINE, Scene
from tests.jobs.working import claim_of, fresh, looked_at, outcome_of, segment_of
from tests.making import join, make_user

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def signed_in(user: User) -> Client:
    client = Client()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return client


def running(scene: Scene, segments: int = 2) -> Job:
    job = scene.start()
    scene.validate(job, GOOD | {"preview": [[{"text": "user\nHi", "trained": False}, {"text": "Hello.", "trained": True}]]})
    claims.claim(claim_of(job))
    for number in range(segments):
        claims.segment(segment_of(job, number, done=(number + 1) / 10))
    return fresh(job)


def test_a_maintainer_goes_from_the_file_to_a_running_job(scene: Scene) -> None:
    client = signed_in(join(scene.publisher, "maintainer"))
    slug = scene.publisher.slug

    page = client.get(reverse("jobs:new", args=[slug]))
    brought = SimpleUploadedFile("mine.jsonl", LINE * 7)
    chosen = client.post(reverse("jobs:new", args=[slug]), {"base": scene.base.public_id, "scope": "adapter", "file": brought})
    settings_page = client.get(chosen["Location"])
    values = {name: field.initial for name, field in settings_page.context["form"].fields.items()} | settings_page.context["form"].initial
    started = client.post(chosen["Location"], values | {"epochs": 2})

    file = UploadedFile.objects.get(name="mine.jsonl")
    job = Job.objects.get(kind=Job.Kind.FINETUNE)
    assert (page.status_code, settings_page.status_code) == (200, 200)
    assert chosen["Location"] == reverse("jobs:settings", args=[slug, scene.base.public_id, file.public_id])
    assert started["Location"] == reverse("jobs:job", args=[job.public_id])
    assert (job.params["settings"]["epochs"], job.params["file"]) == (2, file.sha256)
    assert client.get(started["Location"]).status_code == 200


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ({}, "Choose a file to train on."),
        ({"file": SimpleUploadedFile("a.xlsx", b"x")}, "named something.jsonl, .csv or .txt."),
        ({"file": SimpleUploadedFile("a.jsonl", b"")}, "empty"),
    ],
)
def test_a_file_that_will_not_do_is_said_at_its_field(scene: Scene, sent: dict[str, Any], said: str) -> None:
    sent = {"base": scene.base.public_id, "scope": "adapter", **sent}
    response = signed_in(scene.owner).post(reverse("jobs:new", args=[scene.publisher.slug]), sent)

    assert response.status_code == 422
    assert said in response.content.decode()
    assert not Job.objects.exists()


def test_a_setting_out_of_bounds_is_said_at_its_field(scene: Scene) -> None:
    path = reverse("jobs:settings", args=[scene.publisher.slug, scene.base.public_id, scene.file.public_id])
    client = signed_in(scene.owner)
    values = client.get(path).context["form"].initial

    response = client.post(path, values | {"rank": 900})

    assert (response.status_code, list(response.context["form"].errors)) == (422, ["rank"])
    assert not Job.objects.exists()


def test_the_page_of_a_running_job_shows_how_far_it_is_and_its_curve(scene: Scene) -> None:
    job = running(scene, segments=4)

    response = signed_in(join(scene.publisher, "member")).get(reverse("jobs:job", args=[job.public_id]))

    page = response.content.decode()
    assert response.context["standing"].percent == 40
    assert 'aria-label="Training loss went from 2.00 to 1.70 in 4 of 10 steps."' in page
    assert "step 4 of 10" in page
    assert '<span class="masked">user\nHi</span>Hello.' in page
    assert reverse("jobs:events", args=[job.public_id]) in page
    assert reverse("jobs:pause", args=[job.public_id]) not in page


def test_the_page_tells_how_often_the_chosen_answer_is_preferred_where_that_was_measured(scene: Scene) -> None:
    job = running(scene, segments=0)
    steps = [segment_of(job, number, done=0.1) for number in range(2)]
    for said, found in zip(steps, ({}, {"validation_loss": 0.61, "validation_accuracy": 0.8333}), strict=True):
        said.events[0].update(found)
    client, path = signed_in(scene.owner), reverse("jobs:job", args=[job.public_id])

    claims.segment(steps[0])
    before = client.get(path).content.decode()
    claims.segment(steps[1])

    assert "preferred" not in before
    assert "the chosen answer preferred in 83%" in client.get(path).content.decode()


def test_what_is_live_beyond_the_last_segment_is_drawn_too_and_survives_its_loss(scene: Scene) -> None:
    job = running(scene)
    said = {"type": "progress", "stage": "training", "done": 0.3, "step": 3, "steps": 10, "events": segment_of(job, 2).events}
    valkey.client().xadd(f"jobs:{job.public_id}:progress", {"event": json.dumps(said)})
    client, path = signed_in(scene.owner), reverse("jobs:job", args=[job.public_id])

    live = client.get(path).context["standing"]
    valkey.client().flushdb()
    recorded = client.get(path).context["standing"]

    assert (live.step, live.steps, live.percent, str(live.stage)) == (3, 10, 30, "training")
    assert (recorded.step, recorded.steps, recorded.percent) == (2, 10, 20)


def test_a_bad_line_is_shown_with_its_place_and_reason(scene: Scene) -> None:
    job = scene.start()
    problem = {"line": 7, "column": 12, "code": "unknown_role", "message": "", "detail": {"message": 2, "role": "robot"}, "skips": False}
    scene.validate(job, {**BAD, "problem_count": 1, "problems": [problem]})

    page = signed_in(scene.owner).get(reverse("jobs:job", args=[job.public_id])).content.decode()
    job.error_detail = {**fresh(job).error_detail, "error_count": 1}
    job.save(update_fields=["error_detail"])
    of_one = signed_in(scene.owner).get(reverse("jobs:job", args=[job.public_id])).content.decode()
    chinese = signed_in(scene.owner).get(f"/zh-hans/studio/jobs/{job.public_id}/")

    assert "Message 2 has the role “robot”; it must be system, user or assistant." in page
    assert "2 lines of the file can&#x27;t be trained on" in page
    assert "1 line of the file can&#x27;t be trained on" in of_one
    assert "Try again" not in page
    assert chinese.status_code == 200


DESCRIBED = GOOD | {
    "container": "csv",
    "format": "completion",
    "lengths": [[16, 1], [32, 0], [64, 3]],
    "scripts": {"han": 10, "latin": 90},
    "findings": [{"kind": "email", "count": 1200, "lines": [3, 1007]}, {"kind": "aws_key", "count": 0, "lines": []}],
    "mentions": {"gender": {"women": 2, "men": 31, "gender_minorities": 0}, "age": {"children": 0, "old_people": 0}},
}


def test_the_page_tells_what_the_file_is_and_what_its_texts_are_like(scene: Scene) -> None:
    job = scene.start()
    scene.validate(job, DESCRIBED)
    client = signed_in(scene.owner)

    page = " ".join(client.get(reverse("jobs:job", args=[job.public_id])).content.decode().split())
    chinese = client.get(f"/zh-hans/studio/jobs/{job.public_id}/").content.decode()

    assert "<dt>Format</dt><dd>prompts with completions (CSV)</dd>" in page
    assert '<span>up to 64</span><svg aria-hidden="true"><rect width="100.0%" height="8" rx="2"/></svg><span>3</span>' in page
    assert page.index("<span>Latin</span>") < page.index("<span>Chinese characters</span>")
    assert "<span>90%</span>" in page
    assert "<dt>E-mail addresses</dt><dd>1,200 · first in line 3, 1007</dd>" in page
    assert "AWS keys" not in page
    assert "<dt>Gender</dt><dd>women 2 · men 31 · gender minorities 0</dd>" in page
    assert "<dt>Age</dt>" not in page
    assert "abusive language is not measured" in page
    for said in ("提示与回答", "电子邮件地址", "女性 2", "数据报告"):
        assert said in chinese


def test_the_page_of_a_file_in_which_nothing_was_found_says_what_was_looked_for(scene: Scene) -> None:
    job = scene.start()
    scene.validate(job, DESCRIBED | {"findings": [{"kind": "email", "count": 0, "lines": []}], "mentions": {}})

    page = signed_in(scene.owner).get(reverse("jobs:job", args=[job.public_id])).content.decode()

    assert "None found." in page
    assert "Found by their shape alone" in page
    assert "Who is mentioned" not in page


@pytest.mark.parametrize(
    ("overlap", "said", "chinese"),
    [
        ({"held_out": 40, "exact": 3, "near": 1, "lines": [7, 1007]}, "<dt>First in line</dt><dd>7, 1007</dd>", "留出的样本"),
        (
            {"held_out": 40, "exact": 0, "near": 0, "lines": []},
            "None of the 40 held-out examples is trained on, word for word or nearly.",
            "留出的样本",
        ),
        ({"held_out": 0, "exact": 0, "near": 0, "lines": []}, "", ""),
    ],
)
def test_the_page_tells_what_is_held_out_and_trained_on_all_the_same(
    scene: Scene, overlap: dict[str, Any], said: str, chinese: str
) -> None:
    job = scene.start()
    scene.validate(job, DESCRIBED | {"overlap": overlap, "near_duplicates": 12})
    client = signed_in(scene.owner)

    page = client.get(reverse("jobs:job", args=[job.public_id])).content.decode()

    assert said in page
    assert ("Held out and trained on" in page) is bool(said)
    assert chinese in client.get(f"/zh-hans/studio/jobs/{job.public_id}/").content.decode()
    assert "<dt>Near duplicates</dt><dd>12</dd>" in page


def test_a_text_file_is_offered_to_be_learned_as_text(scene: Scene) -> None:
    client = signed_in(scene.owner)
    tale = SimpleUploadedFile("tale.txt", b"Once upon a time.")

    chosen = client.post(reverse("jobs:new", args=[scene.publisher.slug]), {"base": scene.base.public_id, "scope": "adapter", "file": tale})
    form = client.get(chosen["Location"]).context["form"]
    refused = client.post(chosen["Location"], form.initial | {"method": "supervised"})
    started = client.post(chosen["Location"], form.initial)

    job = Job.objects.get(kind=Job.Kind.FINETUNE)
    assert list(refused.context["form"].errors) == ["method"]
    assert started["Location"] == reverse("jobs:job", args=[job.public_id])
    assert job.params["settings"]["method"] == "text"
    page = client.get(started["Location"]).content.decode()
    assert "Plain text" in page
    assert "An adapter (LoRA)" in page


def test_a_file_for_another_way_of_training_is_said_in_the_readers_words(scene: Scene) -> None:
    problem = {"line": 1, "column": 1, "code": "wrong_format", "message": "", "detail": {"format": "preference", "use": "supervised"}}
    job = scene.start()
    scene.validate(
        job,
        BAD
        | {
            "examples": 0,
            "findings": [{"kind": "email", "count": 0, "lines": []}],
            "problems": [problem],
            "error_count": 1,
            "problem_count": 1,
        },
    )

    page = signed_in(scene.owner).get(reverse("jobs:job", args=[job.public_id])).content.decode()

    assert fresh(job).state == Job.State.FAILED
    assert "The file holds preferences. To train this way it must hold conversations, or prompts with completions." in page
    assert "None found." not in page


def test_the_page_of_a_validation_is_that_of_its_fine_tune(scene: Scene) -> None:
    job = scene.start()
    assert job.after is not None

    response = signed_in(scene.owner).get(reverse("jobs:job", args=[job.after.public_id]))

    assert response["Location"] == reverse("jobs:job", args=[job.public_id])


def test_the_buttons_act_and_come_back(scene: Scene) -> None:
    job = running(scene)
    client = signed_in(scene.owner)

    answers = [client.post(reverse(f"jobs:{act}", args=[job.public_id])) for act in ("pause", "resume", "cancel", "cancel")]

    assert [answer["Location"] for answer in answers] == [reverse("jobs:job", args=[job.public_id])] * 4
    assert fresh(job).wish == "cancel"


@pytest.mark.parametrize("name", ["pause", "resume", "cancel", "retry", "make_version"])
def test_a_stranger_and_a_member_act_on_nothing(scene: Scene, name: str) -> None:
    job = running(scene)
    before = Job.objects.filter(pk=job.pk).values().get()
    path = reverse(f"jobs:{name}", args=[job.public_id])

    assert signed_in(make_user()).post(path).status_code == 404
    assert signed_in(join(scene.publisher, "member")).post(path).status_code == 403
    assert "/account/login/" in Client().post(path)["Location"]

    assert Job.objects.filter(pk=job.pk).values().get() == before


def test_a_stranger_by_id_sees_nothing(scene: Scene) -> None:
    job = running(scene)
    client = signed_in(make_user())
    paths = [
        reverse("jobs:finetunes", args=[scene.publisher.slug]),
        reverse("jobs:files", args=[scene.publisher.slug]),
        reverse("jobs:new", args=[scene.publisher.slug]),
        reverse("jobs:settings", args=[scene.publisher.slug, scene.base.public_id, scene.file.public_id]),
        reverse("jobs:job", args=[job.public_id]),
        reverse("jobs:events", args=[job.public_id]),
    ]

    assert [client.get(path).status_code for path in paths] == [404] * 6


def test_the_file_of_another_publisher_is_not_offered_by_id(scene: Scene) -> None:
    other = Scene()

    path = reverse("jobs:settings", args=[scene.publisher.slug, scene.base.public_id, other.file.public_id])

    assert signed_in(scene.owner).get(path).status_code == 404


def test_a_finished_run_becomes_a_draft_of_a_new_gpt(scene: Scene) -> None:
    job = scene.finish(scene.start())
    values = {"listing": "", "slug": "headline", "name": "Headline", "summary": "One plain sentence.", "number": "1.0.0", "change_log": ""}

    response = signed_in(scene.owner).post(reverse("jobs:make_version", args=[job.public_id]), values)

    version = Version.objects.get(made_by=job.public_id)
    assert (version.full_name, version.state) == (f"{scene.publisher.slug}/headline@1.0.0", "draft")
    assert response["Location"].endswith(f"/studio/gpts/{scene.publisher.slug}/headline/")


def test_the_page_shows_what_is_answered_on_the_way_and_offers_each_checkpoint(scene: Scene) -> None:
    job, plain = scene.finish(scene.start(), events=looked_at(1.5, 1.2, 1.4, 1.3), best_step=20), scene.finish(scene.start())
    client = signed_in(scene.owner)

    response = client.get(reverse("jobs:job", args=[job.public_id]))
    without = client.get(reverse("jobs:job", args=[plain.public_id]))

    (asked,) = response.context["standing"].asked
    assert [text for _point, text in asked.foremost] == ["At the base.", "At 20.", "At 40."]
    page = response.content.decode()
    assert page.count("At the base.") == page.count("At 20.") == 2  # foremost, and among all
    assert page.count("At 10.") == 1
    step = response.context["form"]["step"]
    assert [value for value, _label in step.field.choices] == [40, 30, 20, 10]
    assert (step.value(), dict(step.field.choices)[20]) == (20, "Step 20 · held-out loss 1.20 · best")
    assert ("step" in without.context["form"].fields, without.context["standing"].asked) == (False, [])


def test_what_the_model_was_not_asked_is_told_and_what_it_says_is_text_alone(scene: Scene) -> None:
    events = looked_at(1.5, 1.2, answer="<b>bold</b>")
    events[0]["unasked"] = ["A question without end"]
    events[2]["samples"] = []  # of a worker that had no room for the question
    job = scene.finish(scene.start(), events=events, best_step=20)

    page = signed_in(scene.owner).get(reverse("jobs:job", args=[job.public_id])).content.decode()

    assert "not asked: A question without end" in page
    assert page.count("&lt;b&gt;bold&lt;/b&gt;") == 2
    assert "<b>bold" not in page


def test_where_nothing_was_held_out_no_checkpoint_is_called_the_best(scene: Scene) -> None:
    job = scene.finish(scene.start(), events=looked_at(None, None), best_step=20)

    form = signed_in(scene.owner).get(reverse("jobs:job", args=[job.public_id])).context["form"]

    assert [label for _value, label in form["step"].field.choices] == ["Step 20", "Step 10"]
    assert form["step"].value() == 20


def test_a_draft_is_made_of_the_checkpoint_that_was_chosen(scene: Scene) -> None:
    events = looked_at(1.5, 1.2)
    job = scene.finish(scene.start(), events=events, best_step=20)
    values = {"listing": "", "slug": "early", "name": "Early", "summary": "One sentence.", "number": "1.0.0", "change_log": ""}
    client, path = signed_in(scene.owner), reverse("jobs:make_version", args=[job.public_id])

    unknown = client.post(path, values | {"step": "15"})
    client.post(path, values | {"step": "10"})

    assert (unknown.status_code, list(unknown.context["form"].errors)) == (422, ["step"])
    version = Version.objects.get(made_by=job.public_id)
    assert version.artifact is not None
    assert version.artifact.digest == events[1]["snapshot"]
    client.post(path, values | {"slug": "late", "name": "Late", "step": "20"})
    assert Version.objects.filter(made_by=job.public_id).count() == 2
    assert "Make another version of it" in client.get(reverse("jobs:job", args=[job.public_id])).content.decode()


def test_prompts_of_ones_own_are_kept_and_used_again(scene: Scene) -> None:
    path = reverse("jobs:settings", args=[scene.publisher.slug, scene.base.public_id, scene.file.public_id])
    client = signed_in(scene.owner)
    values = client.get(path).context["form"].initial

    refused = client.post(path, values | {"prompts": "one\ntwo\nthree\nfour"})
    client.post(path, values | {"prompts": "Where is Paris?\r\n\r\n你好"})

    assert list(refused.context["form"].errors) == ["prompts"]
    job = Job.objects.get(kind="finetune")
    assert job.params["prompts"] == ["Where is Paris?", "你好"]
    assert client.get(f"{path}?like={job.public_id}").context["form"]["prompts"].value() == "Where is Paris?\n你好"


def test_a_version_number_that_is_none_is_said_at_its_field_and_makes_no_gpt(scene: Scene) -> None:
    job = scene.finish(scene.start())
    values = {"listing": "", "slug": "headline", "name": "Headline", "summary": "One plain sentence.", "number": "one", "change_log": ""}

    response = signed_in(scene.owner).post(reverse("jobs:make_version", args=[job.public_id]), values)

    assert (response.status_code, list(response.context["form"].errors)) == (422, ["number"])
    assert not scene.publisher.listings.filter(slug="headline").exists()


def test_the_lists_cost_the_same_queries_however_long_they_are(scene: Scene, django_assert_max_num_queries: Any) -> None:
    client, path = signed_in(scene.owner), reverse("jobs:finetunes", args=[scene.publisher.slug])
    for _ in range(6):
        scene.start()
    client.get(path)

    with django_assert_max_num_queries(14):
        response = client.get(path)

    assert len(response.context["rows"]) == 6
    assert client.get(reverse("jobs:files", args=[scene.publisher.slug])).status_code == 200


def test_the_stream_tells_what_happens_and_ends_with_the_job(scene: Scene) -> None:
    job = running(scene)

    async def read() -> list[str]:
        client = AsyncClient()
        await client.aforce_login(scene.owner, backend="django.contrib.auth.backends.ModelBackend")
        response: Any = await client.get(reverse("jobs:events", args=[job.public_id]))
        seen = []
        async for part in response.streaming_content:
            seen.append(part.decode())
            if '"claimed"' in seen[-1]:
                await asyncio.to_thread(claims.finished, outcome_of(job, result={"steps": 3}))
        return seen

    seen = asyncio.run(asyncio.wait_for(read(), 30))

    assert seen[0] == "retry: 2000\n\n"
    assert [part.partition("\n")[2] for part in seen[-3:-1]] == [
        'event: state\ndata: {"kind": "queued"}\n\n',
        'event: state\ndata: {"kind": "claimed"}\n\n',
    ]
    assert seen[-1] == "event: ended\ndata: {}\n\n"


def test_who_chooses_all_weights_gets_their_settings_and_estimate_and_starts_it(scene: Scene) -> None:
    client, slug = signed_in(scene.owner), scene.publisher.slug
    sent = {"base": scene.base.public_id, "scope": "weights", "earlier": scene.file.public_id}

    chosen = client.post(reverse("jobs:new", args=[slug]), sent)
    page = client.get(chosen["Location"])
    form = page.context["form"]
    started = client.post(chosen["Location"], form.initial | {"epochs": 2})

    job = Job.objects.get(kind=Job.Kind.FINETUNE)
    assert chosen["Location"].endswith(f"{scene.file.public_id}/?scope=weights")
    assert not {"rank", "alpha", "dropout", "targets"} & form.fields.keys()
    assert "Memory, at least" in page.content.decode()
    assert (job.params["settings"]["scope"], job.params["settings"]["learning_rate"]) == ("weights", 1e-4)
    its_page = client.get(started["Location"]).content.decode()
    assert "All weights" in its_page
    assert "?like=" + job.public_id + "&amp;scope=weights" in its_page


def test_all_weights_of_a_base_that_is_too_large_are_refused_at_the_choice(scene: Scene, settings: Any) -> None:
    settings.MAX_PARAMETERS_TRAINED_IN_FULL = 1_000_000
    sent = {"base": scene.base.public_id, "scope": "weights", "earlier": scene.file.public_id}

    response = signed_in(scene.owner).post(reverse("jobs:new", args=[scene.publisher.slug]), sent)

    assert (response.status_code, list(response.context["form"].errors)) == (422, ["scope"])
    assert "Train an adapter, or choose a smaller base." in response.content.decode()
