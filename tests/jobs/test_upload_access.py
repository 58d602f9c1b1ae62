"""Who may begin an upload, add to it, take it, and know of it."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from store.errors import NotFound
from store.jobs import uploads
from store.jobs.errors import UploadLost
from store.jobs.models import Upload, UploadedFile
from tests.jobs.test_finetunes import Scene
from tests.jobs.uploading import CONTENT, PIECE, Tus, append, begun, empty_scene, finish, metadata_of, waiting
from tests.making import join, make_user

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def scene() -> Scene:
    return empty_scene()


def test_an_upload_is_its_owners_alone_also_within_the_publisher(scene: Scene) -> None:
    url = Tus(scene.owner).create(body=CONTENT[:10], content_type=PIECE, **metadata_of(scene))["Location"]
    public_id = url.rstrip("/").rpartition("/")[2]

    for other in (make_user(), join(scene.publisher, "maintainer"), make_user(is_superuser=True, is_staff=True)):
        tus = Tus(other)
        answers = [tus.ask("HEAD", url), tus.patch(url, 10, b"x"), tus.ask("DELETE", url)]
        assert [answer.status_code for answer in answers] == [404, 404, 404]
        with pytest.raises((UploadLost, NotFound)):
            uploads.finish(other, scene.publisher, public_id, purpose="fine-tune")

    assert Tus(scene.owner).offset(url) == 10


def test_only_who_may_bring_a_publishers_files_begins_an_upload(scene: Scene) -> None:
    member, stranger = join(scene.publisher, "member"), make_user()

    refused = [Tus(user).create(**metadata_of(scene)).status_code for user in (member, stranger)]
    nobody = Client().post(reverse("jobs:uploads"), headers={"Tus-Resumable": "1.0.0", "Upload-Length": "10"})

    assert (refused, nobody.status_code, nobody.json()["error"]["code"]) == ([403, 404], 401, "not_signed_in")
    assert not Upload.objects.exists()


def test_an_upload_is_taken_for_what_it_was_begun_for_and_by_who_still_may(scene: Scene) -> None:
    upload = begun(scene)
    append(upload, CONTENT)

    for publisher, purpose in ((scene.publisher, "evaluation"), (None, "batch"), (None, "fine-tune")):
        with pytest.raises(UploadLost):
            uploads.finish(scene.owner, publisher, upload.public_id, purpose=purpose)
    scene.publisher.memberships.filter(user=scene.owner).delete()
    with pytest.raises(NotFound):
        finish(scene, upload)

    assert not UploadedFile.objects.filter(name="mine.jsonl").exists()


@pytest.mark.parametrize(("role", "status"), [(None, 404), ("member", 403)])
def test_who_has_left_the_publisher_adds_nothing_more_and_may_give_up_what_was_begun(scene: Scene, role: str | None, status: int) -> None:
    maintainer = join(scene.publisher, "maintainer")
    tus = Tus(maintainer)
    url = tus.create(body=CONTENT[:10], content_type=PIECE, **metadata_of(scene))["Location"]
    membership = scene.publisher.memberships.filter(user=maintainer)
    if role is None:
        membership.delete()
    else:
        membership.update(role=role)

    refused = tus.patch(url, 10, CONTENT[10:])

    assert (refused.status_code, tus.offset(url), len(waiting())) == (status, 10, 1)
    assert (tus.ask("DELETE", url).status_code, waiting()) == (204, [])
