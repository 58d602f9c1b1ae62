"""Uploads in pieces: the protocol as tus 1.0.0 has it, what is kept of a cut upload, who may, and the file that comes of it."""

from __future__ import annotations

import hashlib
import io
import threading
from base64 import b64encode
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import IO, Any, BinaryIO

import pytest
import time_machine
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store import valkey
from store.accounts.models import User
from store.batches.models import Batch
from store.catalog import artifacts, staging
from store.errors import NotFound
from store.jobs import files, uploads
from store.jobs.errors import FileRejected, FileTooLarge, StorageFull, TooManyUploads, UploadLost, WrongOffset
from store.jobs.models import Job, Upload, UploadedFile
from tests.jobs.test_finetunes import LINE, Scene
from tests.jobs.test_views import signed_in
from tests.making import join, make_listing, make_prompt, make_user

pytestmark = pytest.mark.django_db(transaction=True)
CONTENT = LINE * 7
LENGTH = len(CONTENT)
PIECE = "application/offset+octet-stream"


@pytest.fixture
def scene() -> Scene:
    """With no piece waiting: the artifact store is that of all tests."""
    staging.remove(waiting())
    return Scene()


class Tus:
    """A client of the protocol."""

    def __init__(self, user: User) -> None:
        self.client = signed_in(user)

    def ask(self, method: str, url: str, body: bytes = b"", *, content_type: str = PIECE, **headers: Any) -> HttpResponse:
        sent = {"Tus-Resumable": "1.0.0", "Content-Type": content_type} | {
            name.replace("_", "-"): str(value) for name, value in headers.items()
        }
        return self.client.generic(method, url, body, content_type, headers={k: v for k, v in sent.items() if v != "None"})  # type: ignore[arg-type]

    def create(
        self, length: Any = LENGTH, body: bytes = b"", *, content_type: str = "", checksum: str | None = None, **said: str
    ) -> HttpResponse:
        metadata = ",".join(f"{name} {b64encode(value.encode()).decode()}" for name, value in said.items())
        headers = {"Upload_Length": length, "Upload_Metadata": metadata, "Upload_Checksum": checksum}
        return self.ask("POST", reverse("jobs:uploads"), body, content_type=content_type, **headers)

    def patch(self, url: str, offset: int, body: bytes, **more: Any) -> HttpResponse:
        return self.ask("PATCH", url, body, Upload_Offset=offset, **more)

    def offset(self, url: str) -> int:
        return int(self.ask("HEAD", url)["Upload-Offset"])


def metadata_of(scene: Scene, name: str = "mine.jsonl", purpose: str = "fine-tune") -> dict[str, str]:
    return {"filename": name, "purpose": purpose, "publisher": scene.publisher.slug}


def begun(scene: Scene, length: int = LENGTH, name: str = "mine.jsonl") -> Upload:
    return uploads.begin(scene.owner, scene.publisher, name=name, purpose="fine-tune", length_bytes=length)


def append(upload: Upload, content: bytes) -> None:
    uploads.append(upload, offset_bytes=upload.offset_bytes, stream=io.BytesIO(content))


def finish(scene: Scene, upload: Upload) -> UploadedFile:
    return uploads.finish(scene.owner, scene.publisher, upload.public_id, purpose="fine-tune")


def content_of(file: UploadedFile) -> bytes:
    return artifacts.read_blob(file.sha256, max_bytes=1 << 20)


def waiting() -> list[str]:
    return sorted(name for name, _stored_at in staging.waiting())


# ---------------------------------------------------------------- the protocol


def test_a_file_in_two_pieces_becomes_the_file_of_the_fine_tune(scene: Scene) -> None:
    tus = Tus(scene.owner)

    created = tus.create(**metadata_of(scene))
    url = created["Location"]
    first = tus.patch(url, 0, CONTENT[:100])
    between = tus.ask("HEAD", url)
    second = tus.patch(url, 100, CONTENT[100:])
    sent = {"base": scene.base.public_id, "scope": "adapter", "upload": url.rstrip("/").rpartition("/")[2]}
    chosen = tus.client.post(reverse("jobs:new", args=[scene.publisher.slug]), sent)

    file = UploadedFile.objects.get(name="mine.jsonl")
    assert (created.status_code, first.status_code, between.status_code, second.status_code) == (201, 204, 200, 204)
    assert [answer["Tus-Resumable"] for answer in (created, first, between, second)] == ["1.0.0"] * 4
    assert (created["Upload-Offset"], first["Upload-Offset"], second["Upload-Offset"]) == ("0", "100", str(LENGTH))
    assert (between["Upload-Offset"], between["Upload-Length"], between["Cache-Control"]) == ("100", str(LENGTH), "no-store")
    assert between["Upload-Metadata"].startswith("filename bWluZS5qc29ubA==,purpose ")
    assert "Upload-Expires" in second
    assert chosen["Location"] == reverse("jobs:settings", args=[scene.publisher.slug, scene.base.public_id, file.public_id])
    assert (file.sha256, content_of(file)) == (hashlib.sha256(CONTENT).hexdigest(), CONTENT)
    assert waiting() == []


def test_the_first_piece_may_come_with_the_creation(scene: Scene) -> None:
    tus = Tus(scene.owner)

    created = tus.create(body=CONTENT[:10], content_type=PIECE, **metadata_of(scene))

    assert (created.status_code, created["Upload-Offset"], tus.offset(created["Location"])) == (201, "10", 10)


def test_what_is_spoken_here_is_told_before_anything_else(scene: Scene, settings: Any) -> None:
    settings.MAX_UPLOAD_BYTES = 5000

    said = Tus(scene.owner).ask("OPTIONS", reverse("jobs:uploads"), Tus_Resumable=None)

    assert (said.status_code, said["Tus-Version"], said["Tus-Max-Size"]) == (204, "1.0.0", "5000")
    assert said["Tus-Extension"] == "creation,creation-with-upload,expiration,checksum,termination"
    assert said["Tus-Checksum-Algorithm"] == "sha1,sha256"


@pytest.mark.parametrize(
    ("status", "code", "ask"),
    [
        (409, "wrong_offset", lambda tus, url: tus.patch(url, 9, b"x")),
        (409, "wrong_offset", lambda tus, url: tus.patch(url, 11, b"x")),
        (415, "wrong_content_type", lambda tus, url: tus.patch(url, 10, b"x", content_type="application/octet-stream")),
        (412, "wrong_version", lambda tus, url: tus.patch(url, 10, b"x", Tus_Resumable="0.2.2")),
        (412, "wrong_version", lambda tus, url: tus.ask("DELETE", url, Tus_Resumable=None)),
        (400, "invalid_upload", lambda tus, url: tus.ask("PATCH", url, b"x")),
        (400, "invalid_upload", lambda tus, url: tus.patch(url, -1, b"x")),
        (413, "file_too_large", lambda tus, url: tus.patch(url, 10, CONTENT)),
        (460, "wrong_checksum", lambda tus, url: tus.patch(url, 10, b"x", Upload_Checksum="sha1 " + b64encode(b"no").decode())),
        (400, "invalid_upload", lambda tus, url: tus.patch(url, 10, b"x", Upload_Checksum="md5 AAAA")),
        (400, "invalid_upload", lambda tus, url: tus.patch(url, 10, b"x", Upload_Checksum="sha1 ?")),
    ],
)
def test_a_request_against_the_protocol_is_refused_and_adds_nothing(
    scene: Scene, status: int, code: str, ask: Callable[[Tus, str], HttpResponse]
) -> None:
    tus = Tus(scene.owner)
    url = tus.create(body=CONTENT[:10], content_type=PIECE, **metadata_of(scene))["Location"]
    before = waiting()

    answer = ask(tus, url)

    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)  # type: ignore[attr-defined]
    assert (tus.offset(url), waiting()) == (10, before)


@pytest.mark.parametrize(
    ("status", "code", "length", "said"),
    [
        (400, "invalid_upload", None, {}),
        (400, "invalid_upload", "ten", {}),
        (400, "invalid_upload", "9" * 40, {}),
        (400, "file_rejected", 0, {}),
        (413, "file_too_large", 10**9, {}),
        (400, "file_rejected", 10, {"filename": "weights.bin"}),
        (400, "file_rejected", 10, {"purpose": "batch"}),
        (400, "file_rejected", 10, {"purpose": "batch_output"}),
        (400, "file_rejected", 10, {"publisher": ""}),
        (404, "not_found", 10, {"publisher": "nobody"}),
        (400, "invalid_upload", 10, {"filename": "a\0.jsonl"}),
        (400, "invalid_upload", 10, {"filename": "a" * 3000}),
    ],
)
def test_a_file_that_could_not_be_kept_is_refused_before_it_is_sent(
    scene: Scene, status: int, code: str, length: Any, said: dict[str, str]
) -> None:
    answer = Tus(scene.owner).create(length, **metadata_of(scene) | said)

    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)  # type: ignore[attr-defined]
    assert answer.json()["error"]["message"]  # type: ignore[attr-defined]
    assert not Upload.objects.exists()


def test_a_piece_with_its_right_checksum_is_added(scene: Scene) -> None:
    tus = Tus(scene.owner)
    url = tus.create(**metadata_of(scene))["Location"]

    for offset, algorithm in ((0, "sha1"), (5, "sha256")):
        piece = CONTENT[offset : offset + 5]
        digest = b64encode(hashlib.new(algorithm, piece).digest()).decode()
        assert tus.patch(url, offset, piece, Upload_Checksum=f"{algorithm} {digest}").status_code == 204

    assert tus.offset(url) == 10


def test_an_upload_that_is_given_up_is_gone_with_its_pieces(scene: Scene) -> None:
    tus = Tus(scene.owner)
    url = tus.create(body=CONTENT[:10], content_type=PIECE, **metadata_of(scene))["Location"]

    assert tus.ask("DELETE", url).status_code == 204

    assert (tus.ask("HEAD", url).status_code, tus.patch(url, 10, b"x").status_code) == (404, 404)
    assert (waiting(), Upload.objects.count()) == ([], 0)


def test_a_client_that_can_only_post_names_the_method_it_means_and_no_other_request_may(scene: Scene) -> None:
    tus = Tus(scene.owner)
    url = tus.create(**metadata_of(scene))["Location"]

    tus.ask("POST", url, CONTENT[:10], Upload_Offset=0, X_HTTP_Method_Override="PATCH")
    read = tus.ask("GET", url, X_HTTP_Method_Override="DELETE")  # a GET needs no CSRF token

    assert (read.status_code, tus.offset(url)) == (405, 10)


def test_without_a_csrf_token_nothing_is_begun_or_added(scene: Scene) -> None:
    tus = Tus(scene.owner)
    url = tus.create(**metadata_of(scene))["Location"]
    tus.client.handler.enforce_csrf_checks = True

    refused = [tus.create(**metadata_of(scene)), tus.patch(url, 0, b"x"), tus.ask("DELETE", url)]
    token = tus.client.get(reverse("jobs:new", args=[scene.publisher.slug])).cookies["csrftoken"].value
    accepted = tus.patch(url, 0, b"x", X_CSRFToken=token)

    assert ([answer.status_code for answer in refused], accepted.status_code) == ([403, 403, 403], 204)
    assert Upload.objects.count() == 1


def test_a_first_piece_that_is_refused_leaves_no_upload_of_which_nobody_knows(scene: Scene) -> None:
    wrong = "sha1 " + b64encode(b"no").decode()

    refused = Tus(scene.owner).create(4, CONTENT[:4], content_type=PIECE, checksum=wrong, **metadata_of(scene))

    assert (refused.status_code, waiting(), Upload.objects.count()) == (460, [], 0)


@pytest.mark.parametrize("odd", ["fil\0ename YS5qc29ubA==", "filename YS5qc29ubA==,\x01", "filename YS5qc29ubA==,é YQ==", "filename é"])
def test_metadata_that_could_not_be_sent_back_are_refused(scene: Scene, odd: str) -> None:
    answer = Tus(scene.owner).ask("POST", reverse("jobs:uploads"), Upload_Length=9, Upload_Metadata=odd)

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_upload")  # type: ignore[attr-defined]


def test_a_name_loses_what_cannot_be_shown(scene: Scene) -> None:
    tus = Tus(scene.owner)

    tus.create(**metadata_of(scene, "C:\\data\\two\r\nlines \u202elnosj&.jsonl"))

    assert Upload.objects.get().name == "twolines lnosj&.jsonl"


# ---------------------------------------------------------------- what is kept


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


# ---------------------------------------------------------------- limits and time


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
def test_no_file_that_may_be_brought_has_too_many_pieces(limit: int, settings: Any) -> None:
    settings.MAX_UPLOAD_BYTES = limit

    assert uploads.piece_bytes() >= 4 * 1024**2
    assert limit / uploads.piece_bytes() <= uploads.MAX_PIECES / 2


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


# ---------------------------------------------------------------- who may


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


# ---------------------------------------------------------------- the forms


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


def test_too_large_a_piece_is_refused_by_its_length(scene: Scene) -> None:
    upload = begun(scene, 10)

    with pytest.raises(FileTooLarge):
        append(upload, b"x" * 11)

    assert (upload.offset_bytes, waiting()) == (0, [])
