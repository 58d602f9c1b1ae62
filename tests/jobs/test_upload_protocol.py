"""Uploads in pieces, as tus 1.0.0 has it: what is answered, and what is refused."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import pytest
from django.http import HttpResponse
from django.urls import reverse

from store.jobs.models import Upload, UploadedFile
from tests.jobs.test_finetunes import Scene
from tests.jobs.uploading import CONTENT, LENGTH, PIECE, Tus, content_of, empty_scene, metadata_of, waiting

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def scene() -> Scene:
    return empty_scene()


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
