"""How much may be on its way at once, how often one may ask, and how long what nobody finishes is kept."""

from __future__ import annotations

import io
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.utils import timezone

from store.catalog import artifacts, staging
from store.jobs import files, uploads
from store.jobs.errors import FileRejected, FileTooLarge, StorageFull, TooManyUploads
from store.jobs.models import Upload, UploadedFile
from tests.jobs.test_finetunes import Scene
from tests.jobs.uploading import CONTENT, Tus, append, begun, content_of, empty_scene, finish, metadata_of, waiting
from tests.making import make_user

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def scene() -> Scene:
    return empty_scene()


def test_what_is_on_its_way_takes_its_place_beforehand(scene: Scene, settings: Any) -> None:
    settings.UPLOADED_BYTES_PER_PUBLISHER = files.kept_bytes(scene.publisher) + 1000
    first = begun(scene, 600)

    with pytest.raises(StorageFull):
        begun(scene, 401)
    begun(scene, 400)
    uploads.cancel(first)

    assert begun(scene, 600).length_bytes == 600


def test_a_publisher_and_a_person_have_so_many_unfinished_ones_and_no_more(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "UNFINISHED_AT_ONCE", 2)
    one, other = make_user(), make_user()

    for user in (one, other):
        for _ in range(2):
            uploads.begin(user, None, name="a.jsonl", purpose="batch", length_bytes=10)
        with pytest.raises(TooManyUploads):
            uploads.begin(user, None, name="a.jsonl", purpose="batch", length_bytes=10)
    begun(scene)
    begun(scene)
    with pytest.raises(TooManyUploads):
        begun(scene)


def test_an_upload_of_crumbs_ends_before_it_costs_more_than_a_file(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MAX_PIECES", 3)
    upload = begun(scene)
    for _ in range(3):
        append(upload, b"x")

    with pytest.raises(FileRejected, match="too many pieces"):
        append(upload, b"x")

    assert upload.offset_bytes == 3


@pytest.mark.parametrize("limit", [64 * 1024**2, 10 * 1024**3])
def test_no_file_that_may_be_brought_has_too_many_pieces(limit: int) -> None:
    assert uploads.piece_bytes(limit) >= 4 * 1024**2
    assert limit / uploads.piece_bytes(limit) <= uploads.MAX_PIECES / 2


def test_who_asks_too_often_is_told_when_to_come_back(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("store.jobs.upload_views.ASKED_PER_MINUTE", 2)
    tus = Tus(scene.owner)
    url = tus.create(**metadata_of(scene))["Location"]
    tus.patch(url, 0, b"x")

    refused = tus.patch(url, 1, b"x")

    assert (refused.status_code, int(refused["Retry-After"]) > 0, tus.offset(url)) == (429, True, 1)


def test_an_upload_is_kept_a_day_after_its_last_piece_and_swept_with_its_pieces(scene: Scene) -> None:
    tus = Tus(scene.owner)
    url = tus.create(**metadata_of(scene))["Location"]
    begin = timezone.now()

    with time_machine.travel(begin + timedelta(hours=23)):
        assert tus.patch(url, 0, CONTENT[:10]).status_code == 204
    with time_machine.travel(begin + timedelta(hours=46)):
        assert uploads.sweep() == 0
        assert tus.offset(url) == 10
    with time_machine.travel(begin + timedelta(hours=48)):
        assert tus.patch(url, 10, CONTENT[10:]).status_code == 404
        assert (len(waiting()), uploads.sweep()) == (1, 1)

    assert (waiting(), Upload.objects.count()) == ([], 0)


def test_what_a_killed_server_left_without_an_upload_is_swept_and_nothing_young_or_needed(scene: Scene) -> None:
    upload = begun(scene)
    append(upload, CONTENT[:10])
    staging.put("upload_gone-0-00000000", io.BytesIO(b"x"))

    assert uploads.sweep() == 0
    with time_machine.travel(timezone.now() + timedelta(hours=2)):
        assert uploads.sweep() == 1

    assert waiting() == upload.pieces


def test_what_a_server_killed_within_a_piece_left_in_the_folder_is_swept(scene: Scene) -> None:
    upload = begun(scene)
    append(upload, CONTENT[:10])
    folder = artifacts.open_store().prefix / staging.FOLDER
    torn = folder / f"{upload.public_id}-10-00000000#1"  # as the object store names what it has not yet in full
    torn.write_bytes(b"x")

    assert (uploads.sweep(), torn.exists()) == (0, True)
    with time_machine.travel(timezone.now() + timedelta(hours=2)):
        assert uploads.sweep() == 1

    assert [path.name for path in folder.iterdir()] == upload.pieces


def test_the_file_stays_when_its_upload_expires(scene: Scene) -> None:
    upload = begun(scene)
    append(upload, CONTENT)
    file = finish(scene, upload)

    with time_machine.travel(timezone.now() + timedelta(days=2)):
        uploads.sweep()

    assert not Upload.objects.exists()
    assert content_of(UploadedFile.objects.get(pk=file.pk)) == CONTENT


def test_too_large_a_piece_is_refused_by_its_length(scene: Scene) -> None:
    upload = begun(scene, 10)

    with pytest.raises(FileTooLarge):
        append(upload, b"x" * 11)

    assert (upload.offset_bytes, waiting()) == (0, [])
