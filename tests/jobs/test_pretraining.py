"""A model from nothing: starting it, what it costs, its pages, and the version made of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from django.urls import reverse

from inference.config import GPTConfig
from inference.pretraining import Shape, random_weights, recipe_of
from inference.protocol import CHECKS_QUEUE
from store.accounts.models import User
from store.billing import ledger
from store.catalog.models import Version
from store.errors import NotAllowed, NotFound
from store.jobs import claims, dispatch, finetunes, pretraining
from store.jobs.errors import InvalidSetting, TooManyFinetunes
from store.jobs.estimates import estimate_from_nothing
from store.jobs.models import Job
from store.notifications.models import Notification
from tests.jobs.test_finetunes import BAD, GOOD, Scene
from tests.jobs.test_views import signed_in
from tests.jobs.working import claim_of, fresh, looked_at, outcome_of, queued, segment_of
from tests.making import join, make_artifact, make_listing, make_user

pytestmark = pytest.mark.django_db(transaction=True)
TALES = b"Once there was a fox.\n\nOnce there was a crow.\n\n"
FACTS = {"parameter_count": 4_979_456, "context_length": 512, "architecture": "LlamaForCausalLM", "dtype": "float32"}


@pytest.fixture
def scene() -> Scene:
    scene = Scene()
    scene.file = scene.put(TALES * 100, name="tales.txt")
    return scene


def start(scene: Scene, user: User | None = None, **settings: Any) -> Job:
    return pretraining.start(user or scene.owner, scene.publisher, file=scene.file, settings=settings)


def check(job: Job, **report: Any) -> None:
    """The check of the file by a worker."""
    assert job.after is not None
    claims.claim(claim_of(job.after))
    claims.finished(outcome_of(job.after, result=GOOD | report))


def finish(job: Job, *, events: Sequence[dict[str, Any]] = (), **result: Any) -> Job:
    if job.state == Job.State.WAITING:
        check(job)
    claims.claim(claim_of(job))
    if events:
        claims.segment(replace(segment_of(job, 0), events=list(events)))
    claims.finished(outcome_of(job, result={"manifest": make_artifact().digest, "steps": 3, "facts": FACTS, **result}))
    return fresh(job)


def test_its_file_is_checked_with_the_tokenizer_of_its_shape_and_then_it_is_queued_with_what_a_worker_takes(scene: Scene) -> None:
    job = pretraining.start(scene.owner, scene.publisher, file=scene.file, settings={"size": "medium", "epochs": 2}, prompts=["Once"])
    before = queued()
    (check_asked,) = queued(CHECKS_QUEUE)
    check(job)

    (message,) = queued()
    params = message["params"]
    shape = Shape.from_json(params["shape"])
    recipe = recipe_of(params["settings"], shape)
    assert (job.state, before, fresh(job).state) == (Job.State.WAITING, [], Job.State.QUEUED)
    assert (job.subject, message["kind"], check_asked["kind"]) == ("", "pretraining", "validation")
    looked_at = {"use": "text", "max_length": 512, "validation_share": 0.05, "seed": 1}
    assert check_asked["params"] == {name: params[name] for name in ("file", "name", "shape")} | looked_at
    assert (shape.layers, shape.hidden, shape.vocabulary, shape.context) == (8, 384, 4096, 512)
    assert (recipe.method, recipe.scope, recipe.epochs, recipe.max_length) == ("text", "weights", 2, 512)
    assert (params["file"], params["prompts"]) == (scene.file.sha256, ["Once"])


def test_a_file_that_is_no_good_ends_it_with_the_report_before_it_is_queued(scene: Scene, settings: Any) -> None:
    settings.FINETUNE_PRICE_MICRO_PER_STEP = 1
    ledger.grant(None, scene.owner, 10**6, cause="grant:test")
    job = start(scene)

    check(job, **BAD, problem_count=2)

    job = fresh(job)
    page = signed_in(scene.owner).get(reverse("jobs:job", args=[job.public_id])).content.decode()
    assert (job.state, job.error_code, job.error_detail["line"], queued()) == (Job.State.FAILED, "data_invalid", 2, [])
    assert "What is wrong with the file" in page
    assert ledger.wallet_of(scene.owner).held_micro == 0


@pytest.mark.parametrize("size", pretraining.SIZES)
def test_the_parameters_told_beforehand_are_those_of_the_model(size: str) -> None:
    own = pretraining.SIZES[size]
    shape = Shape(layers=own.layers, hidden=own.hidden, heads=own.heads, vocabulary=2048)

    weights = random_weights(GPTConfig.from_json(shape.config(2048)), seed=1)

    assert own.parameters(2048) == sum(weight.numel() for weight in weights.values())


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"size": "huge"}, "size"),
        ({"vocabulary": 10**6}, "vocabulary"),
        ({"epochs": 0}, "epochs"),
        ({"rank": 8}, "rank"),
        ({"max_length": 4096}, "max_length"),
    ],
)
def test_a_setting_out_of_bounds_is_refused_by_name_and_nothing_is_written(scene: Scene, wrong: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidSetting) as refused:
        start(scene, **wrong)

    assert refused.value.param == param
    assert not Job.objects.exists()


def test_only_owners_and_maintainers_start_one_on_a_file_of_their_publisher(scene: Scene) -> None:
    with pytest.raises(NotAllowed):
        start(scene, join(scene.publisher, "member"))
    with pytest.raises(NotFound):
        start(scene, make_user())
    scene.file = Scene().file
    with pytest.raises(InvalidSetting):
        start(scene)

    assert not Job.objects.exists()


def test_it_takes_one_of_the_places_of_fine_tunes(scene: Scene, settings: Any) -> None:
    settings.FINETUNES_PER_PERSON = 1
    first = start(scene)

    with pytest.raises(TooManyFinetunes):
        scene.start(method="text")

    check(first)
    dispatch.pause(scene.owner, fresh(first))
    scene.start(method="text")
    with pytest.raises(TooManyFinetunes):
        dispatch.resume(scene.owner, fresh(first))


def test_the_most_it_can_cost_is_held_and_what_it_took_is_paid(scene: Scene, settings: Any) -> None:
    settings.FINETUNE_PRICE_MICRO_PER_STEP = 1
    ledger.grant(None, scene.owner, 10**6, cause="grant:test")

    job = start(scene)
    wallet = ledger.wallet_of(scene.owner)
    held = wallet.held_micro
    finish(job, steps=9)

    wallet.refresh_from_db()
    assert held == finetunes.most_steps(scene.file, job.params["settings"]) > 9
    assert (wallet.balance_micro, wallet.held_micro) == (10**6 - 9, 0)
    assert list(Notification.objects.values_list("user", "kind")) == [(scene.owner.pk, "job_succeeded")]


def test_its_result_becomes_weights_that_have_no_base(scene: Scene) -> None:
    job = finish(start(scene), validation_loss=3.5, best_step=2)
    listing = make_listing(scene.publisher)

    version = finetunes.make_version(scene.owner, job, listing=listing, number="1.0.0")

    assert (version.kind, version.state, version.base, version.made_by) == ("weights", "draft", None, job.public_id)
    assert version.lineage() == version.runs_on() == [version]
    assert (version.facts["parameters"], version.facts["context_length"], version.facts["validation_loss"]) == (4_979_456, 512, 3.5)


def test_a_checkpoint_on_its_way_becomes_weights_too(scene: Scene) -> None:
    events = looked_at(3.9, 3.5, 3.6, answer="Once")
    job = finish(start(scene), events=events, validation_loss=3.5, best_step=20, base_validation_loss=8.3)

    version = finetunes.make_version(scene.owner, job, listing=make_listing(scene.publisher), number="1.0.0", step=10)

    assert version.artifact is not None
    assert (version.kind, version.base, version.artifact.digest) == ("weights", None, events[1]["snapshot"])
    assert (version.facts["steps"], version.facts["validation_loss"], version.facts["parameters"]) == (10, 3.9, 4_979_456)


def test_its_page_calls_what_it_began_with_no_base(scene: Scene) -> None:
    job = start(scene)
    check(job)
    claims.claim(claim_of(job))
    began, *steps = looked_at(3.9, 3.5, answer="Once")
    claims.segment(replace(segment_of(job, 0), events=[began | {"validation_loss": 8.31, "unasked": ["A long one."]}, *steps]))

    page = signed_in(scene.owner).get(reverse("jobs:job", args=[job.public_id])).content.decode()
    main = page[page.index("<main") : page.index("</main>")]

    assert main.count("Before training") == 2  # foremost, and among all answers
    assert "before training 8.31" in main
    assert "Too long for this model" in main
    assert not re.search(r">[^<]*\bbase\b", main, re.IGNORECASE)


def test_the_estimate_follows_the_size_of_the_file_and_of_the_model(scene: Scene) -> None:
    scene.file = scene.put(TALES * 10_000, name="more.txt")  # 470,000 bytes
    chosen = pretraining.checked_settings({"epochs": 2, "batch_size": 4, "validation_share": 0.0})
    before = estimate_from_nothing(scene.file, chosen)
    other_file, scene.file = scene.file, scene.put(TALES, name="less.txt")
    finish(start(scene), tokens=1000, seconds=10)
    finish(start(scene, size="large"), tokens=1, seconds=1000)
    scene.file = other_file

    guessed = estimate_from_nothing(scene.file, chosen)
    check(start(scene, epochs=2, batch_size=4, validation_share=0.0), examples=300, tokens=100_000)
    after = estimate_from_nothing(scene.file, chosen)
    other = estimate_from_nothing(scene.file, chosen | {"vocabulary": 8192})

    assert (guessed.seconds, guessed.steps) == (pytest.approx(2350), 116)
    assert (after.tokens, after.steps, after.seconds, after.counted) == (200_000, 150, pytest.approx(2000), True)
    assert (other.tokens, other.counted) == (235_000, False)
    assert (before.tokens, before.steps, before.seconds, before.counted) == (235_000, 116, None, False)
    assert before.parameters == pretraining.SIZES["small"].parameters(4096)
    assert (before.result_bytes, before.memory_bytes) == (4 * before.parameters, 28 * before.parameters)


def test_a_maintainer_goes_from_a_text_to_a_model_and_its_version(scene: Scene) -> None:
    client, slug = signed_in(join(scene.publisher, "maintainer")), scene.publisher.slug
    Version.objects.filter(pk=scene.base.pk).update(state="suspended")  # no base is needed

    chosen = client.post(reverse("jobs:new", args=[slug]), {"scope": "nothing", "earlier": scene.file.public_id})
    page = client.get(chosen["Location"])
    estimated = client.post(chosen["Location"], page.context["form"].initial | {"size": "large", "estimate": "1"})
    started = client.post(chosen["Location"], page.context["form"].initial | {"prompts": "Once"})
    job = Job.objects.get(kind=Job.Kind.PRETRAINING)
    running = client.get(started["Location"]).content.decode()
    finish(job)
    done = client.get(started["Location"]).content.decode()
    values = {"slug": "tales", "name": "Tales", "summary": "Goes on with tales.", "number": "1.0.0", "listing": ""}
    unnamed = client.post(reverse("jobs:make_version", args=[job.public_id]), values)
    made = client.post(reverse("jobs:make_version", args=[job.public_id]), values | {"licence": "CC0-1.0", "languages": ["en"]})

    assert chosen["Location"] == reverse("jobs:pretraining", args=[slug, scene.file.public_id])
    assert "5.1M" in page.content.decode()
    assert (estimated.status_code, estimated.context["estimate"].parameters) == (200, pretraining.SIZES["large"].parameters(4096))
    assert job.params["prompts"] == ["Once"]
    assert "A new model, from nothing" in running
    assert f"{chosen['Location']}?like={job.public_id}" in done
    assert (unnamed.status_code, list(unnamed.context["form"].errors)) == (422, ["licence", "languages"])
    version = Version.objects.get(made_by=job.public_id)
    assert made["Location"] == reverse("pages:studio_listing", args=[slug, "tales"])
    assert (version.listing.licence, version.listing.languages, version.kind) == ("CC0-1.0", ["en"], "weights")
    assert "from nothing" in client.get(reverse("jobs:finetunes", args=[slug])).content.decode()


def test_who_wants_an_adapter_where_there_is_no_base_is_told_so_at_its_field(scene: Scene) -> None:
    Version.objects.update(state="suspended")
    sent = {"scope": "adapter", "earlier": scene.file.public_id}

    response = signed_in(scene.owner).post(reverse("jobs:new", args=[scene.publisher.slug]), sent)

    assert (response.status_code, response.context["form"].errors["base"]) == (422, ["There is no base that may be fine-tuned."])


def test_a_run_can_be_begun_again_with_its_settings(scene: Scene) -> None:
    job = start(scene, size="large", vocabulary=8192, epochs=7)

    path = reverse("jobs:pretraining", args=[scene.publisher.slug, scene.file.public_id])
    page = signed_in(scene.owner).get(f"{path}?like={job.public_id}")

    chosen = {name: page.context["form"].initial[name] for name in ("size", "vocabulary", "epochs")}
    assert chosen == {"size": "large", "vocabulary": 8192, "epochs": 7}
