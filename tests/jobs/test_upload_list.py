"""The list of one's unfinished uploads, and how one goes on with them or gives them up."""

from __future__ import annotations

import hashlib

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from store.jobs import uploads
from store.jobs.models import Job, Upload, UploadedFile
from tests.jobs.test_finetunes import Scene
from tests.jobs.test_views import signed_in
from tests.jobs.uploading import CONTENT, LENGTH, append, begun, empty_scene, finish, waiting
from tests.making import draft_prompt, join, make_base, make_listing, make_prompt

pytestmark = pytest.mark.django_db(transaction=True)
TITLE = "Your unfinished uploads"


@pytest.fixture
def scene() -> Scene:
    return empty_scene()


def files_of(scene: Scene, client: Client) -> str:
    return client.get(reverse("jobs:files", args=[scene.publisher.slug])).content.decode()


def test_ones_own_are_listed_with_how_far_they_are_and_until_when(scene: Scene) -> None:
    upload = begun(scene, name="tom & jerry.jsonl")
    append(upload, CONTENT[: LENGTH // 2])

    page = files_of(scene, signed_in(scene.owner))

    assert TITLE in page
    assert "tom &amp; jerry.jsonl" in page
    assert '<progress max="100" value="50" aria-label="Arrived of tom &amp; jerry.jsonl">50%</progress>' in page
    assert f"{reverse('jobs:new', args=[scene.publisher.slug])}?upload={upload.public_id}" in page
    assert reverse("jobs:remove_upload", args=[upload.public_id]) in page
    assert str(upload.expires_at.year) in page


def test_those_of_others_of_another_publisher_those_made_a_file_and_those_expired_are_not(scene: Scene) -> None:
    colleague = join(scene.publisher, "maintainer")
    for name in ("made.jsonl", "expired.jsonl", "own.jsonl"):
        append(begun(scene, name=name), CONTENT)
    finish(scene, Upload.objects.get(name="made.jsonl"))
    Upload.objects.filter(name="expired.jsonl").update(expires_at=timezone.now())
    uploads.begin(scene.owner, None, name="requests.jsonl", purpose="batch", length_bytes=9)

    own, personal = signed_in(scene.owner), reverse("batches:list")

    assert [upload.name for upload in uploads.unfinished(scene.owner, scene.publisher)] == ["own.jsonl"]
    assert [upload.name for upload in uploads.unfinished(scene.owner, None)] == ["requests.jsonl"]
    assert TITLE not in files_of(scene, signed_in(colleague))
    assert "requests.jsonl" not in files_of(scene, own)
    assert "requests.jsonl" in own.get(personal).content.decode()
    assert TITLE not in signed_in(colleague).get(personal).content.decode()


def test_one_that_is_removed_is_gone_with_its_pieces(scene: Scene) -> None:
    upload = begun(scene)
    append(upload, CONTENT[:10])
    client = signed_in(scene.owner)

    answer = client.post(reverse("jobs:remove_upload", args=[upload.public_id]), follow=True)

    assert answer.redirect_chain == [(reverse("jobs:files", args=[scene.publisher.slug]), 302)]
    assert "The upload of mine.jsonl is removed." in answer.content.decode()
    assert (Upload.objects.count(), waiting()) == (0, [])


def test_nobody_else_removes_it_and_who_has_left_still_does(scene: Scene) -> None:
    upload = begun(scene)
    url = reverse("jobs:remove_upload", args=[upload.public_id])

    refused = signed_in(join(scene.publisher, "owner")).post(url)
    kept = Upload.objects.count()
    scene.publisher.memberships.filter(user=scene.owner).delete()
    removed = signed_in(scene.owner).post(url)

    assert (refused.status_code, kept) == (404, 1)
    assert (removed.status_code, removed["Location"], Upload.objects.count()) == (302, reverse("pages:home"), 0)


def test_the_form_of_one_to_go_on_with_says_how_its_file_begins(scene: Scene) -> None:
    upload = begun(scene)
    append(upload, CONTENT[:50])
    append(upload, CONTENT[50:60])

    page = signed_in(scene.owner).get(f"{reverse('jobs:new', args=[scene.publisher.slug])}?upload={upload.public_id}")

    shown = page.content.decode()
    assert f'data-begun-url="{reverse("jobs:upload", args=[upload.public_id])}"' in shown
    assert f'data-begun-offset="60" data-begun-sha256="{hashlib.sha256(CONTENT[:60]).hexdigest()}"' in shown
    assert f'data-begun-bytes="{LENGTH}"' in shown
    assert page.context["form"].uploaded is None


def test_the_form_of_one_that_has_arrived_has_it_already(scene: Scene) -> None:
    upload = begun(scene)
    append(upload, CONTENT)
    client, path = signed_in(scene.owner), reverse("jobs:new", args=[scene.publisher.slug])

    page = client.get(f"{path}?upload={upload.public_id}").content.decode()
    sent = client.post(path, {"base": scene.base.public_id, "scope": "adapter", "upload": upload.public_id})

    assert f'name="upload" value="{upload.public_id}"' in page
    assert "mine.jsonl is uploaded." in page
    assert "data-begun-url" not in page
    assert (sent.status_code, UploadedFile.objects.get(name="mine.jsonl").size_bytes) == (302, LENGTH)


def test_a_batch_goes_on_with_ones_own_and_needs_no_file_beside_it(scene: Scene) -> None:
    upload = uploads.begin(scene.owner, None, name="requests.jsonl", purpose="batch", length_bytes=2)
    append(upload, b"{}")

    page = signed_in(scene.owner).get(f"{reverse('batches:new')}?upload={upload.public_id}")

    assert (page.context["form"].uploaded, page.context["form"].fields["file"].required) == (upload, False)


def test_a_suite_goes_on_once_it_is_chosen_what_it_shall_measure(scene: Scene) -> None:
    upload = uploads.begin(scene.owner, scene.publisher, name="suite.jsonl", purpose="evaluation", length_bytes=9)
    append(upload, b"{}")
    version, other = draft_prompt(make_base(), make_listing(scene.publisher)), make_prompt()
    client, path = signed_in(scene.owner), reverse("jobs:evaluations", args=[scene.publisher.slug])

    files, choice = files_of(scene, client), client.get(f"{path}?upload={upload.public_id}").content.decode()
    form = client.get(f"{reverse('jobs:evaluate', args=[scene.publisher.slug, version.public_id])}?upload={upload.public_id}")

    assert f"{path}?upload={upload.public_id}" in files
    assert "Go on with suite.jsonl" in choice
    assert f"{reverse('jobs:evaluate', args=[scene.publisher.slug, version.public_id])}?upload={upload.public_id}" in choice
    assert other.public_id not in choice
    assert (form.status_code, form.context["form"].begun) == (200, upload)
    assert f'data-begun-offset="2" data-begun-sha256="{hashlib.sha256(b"{}").hexdigest()}"' in form.content.decode()


def test_a_suite_that_has_arrived_is_measured_with(scene: Scene) -> None:
    line = b'{"prompt": "Where?", "expected": "Here."}'
    upload = uploads.begin(scene.owner, scene.publisher, name="suite.jsonl", purpose="evaluation", length_bytes=len(line))
    append(upload, line)
    version = draft_prompt(make_base(), make_listing(scene.publisher))
    client, path = signed_in(scene.owner), reverse("jobs:evaluate", args=[scene.publisher.slug, version.public_id])

    page = client.get(f"{path}?upload={upload.public_id}")
    client.post(f"{path}?upload={upload.public_id}", {"upload": upload.public_id})

    assert page.context["form"].uploaded == upload
    job = Job.objects.get(kind=Job.Kind.EVALUATION)
    assert (job.params["name"], job.params["suites"], job.subject) == ("suite.jsonl", [], version.public_id)


@pytest.mark.parametrize("whose", ["a colleague's", "of another purpose", "a member's"])
def test_the_list_of_evaluations_offers_nothing_for_what_is_not_ones_own_to_measure_with(scene: Scene, whose: str) -> None:
    draft_prompt(make_base(), make_listing(scene.publisher))
    member = join(scene.publisher, "member")
    purpose = "fine-tune" if whose == "of another purpose" else "evaluation"
    upload = uploads.begin(scene.owner, scene.publisher, name="suite.jsonl", purpose=purpose, length_bytes=9)
    if whose == "a member's":  # who was a maintainer when it began
        Upload.objects.update(created_by=member)
    client = signed_in({"a colleague's": join(scene.publisher, "maintainer"), "a member's": member}.get(whose, scene.owner))

    page = client.get(f"{reverse('jobs:evaluations', args=[scene.publisher.slug])}?upload={upload.public_id}")

    assert page.status_code == 200
    assert "Go on with" not in page.content.decode()


@pytest.mark.parametrize("purpose", ["evaluation", "of another person", "nobody's"])
def test_a_form_opened_with_what_is_not_for_it_opens_empty(scene: Scene, purpose: str) -> None:
    owner = scene.owner if purpose == "evaluation" else join(scene.publisher, "maintainer")
    of = "evaluation" if purpose == "evaluation" else "fine-tune"
    upload = uploads.begin(owner, scene.publisher, name="mine.jsonl", purpose=of, length_bytes=9)
    asked = "upload_0" if purpose == "nobody's" else upload.public_id

    page = signed_in(scene.owner).get(f"{reverse('jobs:new', args=[scene.publisher.slug])}?upload={asked}")

    assert (page.status_code, page.context["form"].begun, page.context["form"].uploaded) == (200, None, None)
    assert "data-begun-url" not in page.content.decode()
