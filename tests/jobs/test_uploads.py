"""What is kept of uploads in pieces: the file that was sent, however they were cut, lost or sent at once."""

from __future__ import annotations

import hashlib
import io
import threading
from base64 import b64encode
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import IO, BinaryIO

import pytest
import time_machine
from django.db import connection
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store import valkey
from store.catalog import staging
from store.jobs import uploads
from store.jobs.errors import FileRejected, UploadLost, WrongOffset
from store.jobs.models import Upload, UploadedFile
from tests.jobs.test_finetunes import LINE, Scene
from tests.jobs.uploading import CONTENT, Tus, append, begun, content_of, empty_scene, finish, metadata_of, waiting

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def scene() -> Scene:
    return empty_scene()


FATES = ("arrives", "lost", "answer lost", "elsewhere", "too long", "damaged", "empty")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(min_size=1, max_size=3000), fates=st.lists(st.sampled_from(FATES), max_size=30), data=st.data())
def test_whatever_the_pieces_and_wherever_they_are_cut_the_file_is_what_was_sent(
    scene: Scene, content: bytes, fates: list[str], data: st.DataObject
) -> None:
    """A piece may be lost on its way, its answer may be lost, it may come for a wrong place, too long, or be damaged."""
    Upload.objects.all().delete()  # what an example left that failed
    staging.remove(waiting())
    valkey.client().flushdb()  # nobody's limits are used up
    tus = Tus(scene.owner)
    created = tus.create(len(content), **metadata_of(scene))
    assert created.status_code == 201, created.content
    url, kept = created["Location"], 0
    for fate in (*fates, "whole"):
        if kept == len(content):
            break
        piece = content[kept:] if fate == "whole" else content[kept : kept + data.draw(st.integers(1, len(content) - kept))]
        if fate in ("whole", "arrives", "answer lost"):
            answer = tus.patch(url, kept, piece)
            kept += len(piece)
            assert (answer.status_code, answer["Upload-Offset"]) == (204, str(kept))
            if fate == "answer lost":  # and sent again
                assert tus.patch(url, kept - len(piece), piece).status_code == 409
        elif fate == "elsewhere":
            wrong = (kept + data.draw(st.integers(1, len(content)))) % (len(content) + 1)
            assert tus.patch(url, wrong, piece).status_code == 409
        elif fate == "too long":
            assert tus.patch(url, kept, content[kept:] + b"more").status_code == 413
        elif fate == "damaged":
            digest = b64encode(hashlib.sha1(piece + b"!").digest()).decode()
            assert tus.patch(url, kept, piece, Upload_Checksum=f"sha1 {digest}").status_code == 460
        elif fate == "empty":
            assert tus.patch(url, kept, b"").status_code == 204
        assert tus.offset(url) == kept  # also when it was lost

    file = finish(scene, Upload.objects.get(public_id=url.rstrip("/").rpartition("/")[2]))

    assert (file.sha256, file.size_bytes) == (hashlib.sha256(content).hexdigest(), len(content))
    assert content_of(file) == content
    assert waiting() == []


def test_a_server_killed_while_it_stores_a_piece_has_acknowledged_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = begun(scene)
    append(upload, CONTENT[:10])

    class Killed(BaseException):
        pass

    def killed_before(name: str, piece: IO[bytes]) -> None:
        raise Killed

    put = staging.put

    def killed_after(name: str, piece: IO[bytes]) -> None:
        put(name, piece)
        raise Killed

    for killed in (killed_before, killed_after):
        monkeypatch.setattr(staging, "put", killed)
        with pytest.raises(Killed):
            append(upload, CONTENT[10:20])
        upload = uploads.find(scene.owner, upload.public_id)
        assert upload.offset_bytes == 10
    monkeypatch.setattr(staging, "put", put)
    append(upload, CONTENT[10:])

    assert content_of(finish(scene, upload)) == CONTENT


def test_of_many_pieces_that_come_for_one_place_at_once_one_is_added(scene: Scene) -> None:
    upload = begun(scene)
    pieces = [bytes([number]) * (number + 1) for number in range(8)]
    all_there = threading.Barrier(len(pieces))

    def send(piece: bytes) -> bytes | None:
        try:
            mine = uploads.find(scene.owner, upload.public_id)
            all_there.wait(timeout=20)
            uploads.append(mine, offset_bytes=0, stream=io.BytesIO(piece))
        except WrongOffset:
            return None
        finally:
            connection.close()
        return piece

    with ThreadPoolExecutor(len(pieces)) as pool:
        added = [piece for piece in pool.map(send, pieces) if piece is not None]

    upload.refresh_from_db()
    assert [staging.joined(upload.pieces).read()] == added
    assert waiting() == upload.pieces


def test_a_form_sent_twice_at_once_brings_one_file(scene: Scene) -> None:
    upload = begun(scene)
    for start in range(0, len(CONTENT), 100):
        append(upload, CONTENT[start : start + 100])
    all_there = threading.Barrier(4)

    def send(_number: int) -> int:
        try:
            all_there.wait(timeout=20)
            return finish(scene, upload).pk
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        brought = set(pool.map(send, range(4)))

    assert len(brought) == 1
    assert (UploadedFile.objects.filter(name="mine.jsonl").count(), waiting()) == (1, [])


def test_a_file_that_is_there_already_is_not_stored_again(scene: Scene) -> None:
    upload = begun(scene, len(LINE) * 4, name="chat.jsonl")
    append(upload, LINE * 4)

    assert finish(scene, upload) == scene.file


def test_a_file_of_which_some_is_missing_is_not_made(scene: Scene) -> None:
    upload = begun(scene)
    append(upload, CONTENT[:-1])

    with pytest.raises(FileRejected, match="not arrived in full"):
        finish(scene, upload)

    append(upload, CONTENT[-1:])
    assert content_of(finish(scene, upload)) == CONTENT


def test_an_upload_whose_piece_the_artifact_store_lost_is_given_up(scene: Scene) -> None:
    upload = begun(scene)
    append(upload, CONTENT)
    staging.remove(upload.pieces)

    with pytest.raises(UploadLost):
        finish(scene, upload)

    assert not Upload.objects.exists()
    assert not UploadedFile.objects.filter(name="mine.jsonl").exists()


@pytest.mark.parametrize("gone", ["cancelled", "expired"])
def test_an_upload_that_is_given_up_while_its_file_is_made_is_lost(scene: Scene, monkeypatch: pytest.MonkeyPatch, gone: str) -> None:
    upload = begun(scene)
    append(upload, CONTENT)
    joined = staging.joined

    def meanwhile(names: Sequence[str]) -> BinaryIO:
        if gone == "cancelled":
            uploads.cancel(upload)
        else:
            with time_machine.travel(timezone.now() + timedelta(days=2)):
                uploads.sweep()
        return joined(names)

    monkeypatch.setattr(staging, "joined", meanwhile)

    with pytest.raises(UploadLost):
        finish(scene, upload)

    assert (waiting(), UploadedFile.objects.filter(name="mine.jsonl").exists()) == ([], False)
