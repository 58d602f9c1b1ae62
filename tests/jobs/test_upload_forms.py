"""The forms that take a file which was brought in pieces."""

from __future__ import annotations

import hashlib

import pytest
from django.urls import reverse

from store.batches.models import Batch
from store.jobs import uploads
from store.jobs.models import Job, UploadedFile
from tests.jobs.test_finetunes import Scene
from tests.jobs.test_views import signed_in
from tests.jobs.uploading import CONTENT, append, begun, empty_scene, waiting
from tests.making import make_listing, make_prompt

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def scene() -> Scene:
    return empty_scene()


@pytest.mark.parametrize("upload", ["upload_00000000000000000000", "a\0", "x" * 41])
def test_a_form_with_an_upload_that_is_not_there_says_so_at_the_file(scene: Scene, upload: str) -> None:
    path = reverse("jobs:new", args=[scene.publisher.slug])

    answer = signed_in(scene.owner).post(path, {"base": scene.base.public_id, "scope": "adapter", "upload": upload})

    assert answer.status_code == 422
    assert set(answer.context["form"].errors) & {"file", "upload"}


def test_a_form_with_an_upload_that_has_not_arrived_in_full_does_not_call_it_uploaded(scene: Scene) -> None:
    upload = begun(scene)
    append(upload, CONTENT[:10])

    sent = {"base": scene.base.public_id, "scope": "adapter", "upload": upload.public_id}
    page = signed_in(scene.owner).post(reverse("jobs:new", args=[scene.publisher.slug]), sent)

    assert page.status_code == 422
    assert "has not arrived in full" in page.content.decode()
    assert "mine.jsonl is uploaded." not in page.content.decode()


def test_a_form_that_is_shown_again_still_has_its_upload(scene: Scene) -> None:
    upload = begun(scene, name="mine & yours.jsonl")
    append(upload, CONTENT)

    sent = {"base": "?", "scope": "adapter", "upload": upload.public_id}
    page = signed_in(scene.owner).post(reverse("jobs:new", args=[scene.publisher.slug]), sent)

    assert page.status_code == 422
    assert f'name="upload" value="{upload.public_id}" autocomplete="off"' in page.content.decode()
    assert page.content.decode().count("mine &amp; yours.jsonl is uploaded.") == 2  # to be seen and to be heard
    assert f'data-person="{scene.owner.public_id}"' in page.content.decode()


def test_a_form_with_nothing_but_a_space_for_an_upload_asks_for_a_file(scene: Scene) -> None:
    answer = signed_in(scene.owner).post(reverse("batches:new"), {"upload": " "})

    assert (answer.status_code, list(answer.context["form"].errors)) == (422, ["file"])


def test_a_batch_and_an_evaluation_begin_with_what_was_uploaded(scene: Scene) -> None:
    version = make_prompt(scene.base, make_listing(scene.publisher))
    requests = uploads.begin(scene.owner, None, name="requests.jsonl", purpose="batch", length_bytes=2)
    suite = uploads.begin(scene.owner, scene.publisher, name="own.jsonl", purpose="evaluation", length_bytes=2)
    table = uploads.begin(scene.owner, scene.publisher, name="own.csv", purpose="evaluation", length_bytes=2)
    for upload in (requests, suite, table):
        append(upload, b"{}")
    client, path = signed_in(scene.owner), reverse("jobs:evaluate", args=[scene.publisher.slug, version.public_id])

    begun_batch = client.post(reverse("batches:new"), {"upload": requests.public_id})
    refused = client.post(path, {"upload": table.public_id})
    measured = client.post(path, {"upload": suite.public_id})

    assert (begun_batch.status_code, refused.status_code, measured.status_code) == (302, 422, 302)
    assert Batch.objects.get().name == "requests.jsonl"
    assert list(refused.context["form"].errors) == ["file"]
    assert Job.objects.get(kind=Job.Kind.EVALUATION).params["file"] == hashlib.sha256(b"{}").hexdigest()
    assert sorted(UploadedFile.objects.exclude(pk=scene.file.pk).values_list("name", flat=True)) == ["own.jsonl", "requests.jsonl"]
    assert waiting() == table.pieces
