"""Uploads in pieces by tus 1.0.0 (https://tus.io/protocols/resumable-upload): the core, creation, creation-with-upload, expiration,
checksum and termination. A session and its CSRF token say who asks; what is refused is said in JSON."""

from __future__ import annotations

import binascii
import hashlib
import hmac
import math
from base64 import b64decode
from collections.abc import Callable
from functools import wraps
from typing import IO, Any, BinaryIO, cast

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import reverse
from django.utils.http import http_date
from django.utils.translation import gettext as _

from store import ratelimit
from store.accounts.models import Publisher, User
from store.errors import DomainError, NotFound, TooMany
from store.jobs import uploads
from store.jobs.access import person
from store.jobs.errors import InvalidUpload, NotSignedIn, WrongChecksum, WrongContentType, WrongVersion
from store.jobs.models import Upload

VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,expiration,checksum,termination"
CHECKSUMS = ("sha1", "sha256")
PIECE = "application/offset+octet-stream"
MAX_METADATA_CHARS = 2000
MAX_DIGITS = 15  # of a length or an offset
ASKED_PER_MINUTE = 600  # creations and pieces of one person
View = Callable[..., HttpResponse]


def _speaks_tus(*methods: str) -> Callable[[View], View]:
    """The rules of the protocol that hold for every request. OPTIONS tells what is spoken here."""

    def decorated(view: View) -> View:
        @wraps(view)
        def answered(request: HttpRequest, **path: Any) -> HttpResponse:
            try:
                response = _answer(view, methods, request, path)
            except DomainError as error:
                response = _refusal(error)
            response["Tus-Resumable"] = VERSION
            response["Cache-Control"] = "no-store"
            return response

        return answered

    return decorated


def _answer(view: View, methods: tuple[str, ...], request: HttpRequest, path: dict[str, Any]) -> HttpResponse:
    if not isinstance(request.user, User):
        raise NotSignedIn
    method = _method(request)
    if method == "OPTIONS":
        spoken = {"Tus-Version": VERSION, "Tus-Extension": EXTENSIONS, "Tus-Checksum-Algorithm": ",".join(CHECKSUMS)}
        return HttpResponse(status=204, headers=spoken | {"Tus-Max-Size": str(settings.MAX_UPLOAD_BYTES)})
    if method not in methods:
        return HttpResponse(status=405, headers={"Allow": ", ".join(("OPTIONS", *methods))})
    if request.headers.get("Tus-Resumable") != VERSION:
        raise WrongVersion
    return view(request, method, **path)


def _method(request: HttpRequest) -> str:
    """For clients that can only POST. Of no other method, lest one that needs no CSRF token becomes one that does."""
    asked = request.method or ""
    return request.headers.get("X-HTTP-Method-Override", asked).upper() if asked == "POST" else asked


def _refusal(error: DomainError) -> HttpResponse:
    response = JsonResponse({"error": {"code": error.code, "message": str(error), "param": error.param}}, status=error.status)
    if isinstance(error, TooMany):
        response["Retry-After"] = str(math.ceil(error.retry_after_s))
    if isinstance(error, WrongVersion):
        response["Tus-Version"] = VERSION
    return response


@_speaks_tus("POST")
def create(request: HttpRequest, method: str) -> HttpResponse:
    """Begins an upload. Its metadata are `filename`, `purpose`, and `publisher`, a slug, for what is not a person's own."""
    _count(person(request))
    if "Upload-Length" not in request.headers:
        raise InvalidUpload(_("Say in Upload-Length how many bytes the file has."))
    length_bytes, sent = _number(request, "Upload-Length"), request.headers.get("Upload-Metadata", "")
    said = _metadata(sent)
    publisher = _publisher(said["publisher"]) if said.get("publisher") else None
    what = {"name": said.get("filename", ""), "purpose": said.get("purpose", ""), "metadata": sent}
    upload = uploads.begin(person(request), publisher, length_bytes=length_bytes, **what)
    if request.content_type == PIECE:
        try:
            uploads.append(upload, offset_bytes=0, stream=_body(request), check=_check(request))
        except BaseException:
            uploads.cancel(upload)  # nobody is told where it is
            raise
    return HttpResponse(status=201, headers={"Location": reverse("jobs:upload", args=[upload.public_id]), **_standing(upload)})


@_speaks_tus("HEAD", "PATCH", "DELETE")
def one_upload(request: HttpRequest, method: str, public_id: str) -> HttpResponse:
    upload = uploads.find(person(request), public_id)
    if method == "HEAD":
        headers = {"Upload-Length": str(upload.length_bytes), **_standing(upload)}
        return HttpResponse(headers=headers | ({"Upload-Metadata": upload.metadata} if upload.metadata else {}))
    if method == "DELETE":
        uploads.cancel(upload)
        return HttpResponse(status=204)
    _count(person(request))
    if request.content_type != PIECE:
        raise WrongContentType
    uploads.append(upload, offset_bytes=_number(request, "Upload-Offset"), stream=_body(request), check=_check(request))
    return HttpResponse(status=204, headers=_standing(upload))


def _standing(upload: Upload) -> dict[str, str]:
    return {"Upload-Offset": str(upload.offset_bytes), "Upload-Expires": http_date(upload.expires_at.timestamp())}


def _count(user: User) -> None:
    ratelimit.require(f"uploads:{user.pk}", limit=ASKED_PER_MINUTE, per_s=60)


def _publisher(slug: str) -> Publisher:
    found = Publisher.objects.filter(slug=slug).first()
    if found is None:
        raise NotFound
    return found


def _body(request: HttpRequest) -> BinaryIO:
    """As a stream: `store.bodies` has capped it and the server spooled it, and `DATA_UPLOAD_MAX_MEMORY_SIZE` is for bodies in memory."""
    return cast(BinaryIO, request)


def _number(request: HttpRequest, header: str) -> int:
    value = request.headers.get(header, "")
    if not (value.isascii() and value.isdigit() and len(value) <= MAX_DIGITS):
        raise InvalidUpload(_("%(header)s must be a number of bytes.") % {"header": header})
    return int(value)


def _metadata(sent: str) -> dict[str, str]:
    """Of `key base64(value)` with commas between; a key may stand alone."""
    if len(sent) > MAX_METADATA_CHARS:
        raise InvalidUpload(_("Upload-Metadata is too long."))
    try:
        if not (sent.isascii() and sent.isprintable()):  # it is sent back as it came
            raise ValueError(sent)
        pairs = [pair.strip().partition(" ") for pair in sent.split(",") if pair.strip()]
        found = {key: b64decode(value, validate=True).decode() for key, _space, value in pairs}
    except ValueError as error:  # also what is neither base64 nor UTF-8
        raise InvalidUpload(_("Upload-Metadata must be pairs of a name and a text in base64.")) from error
    if any("\0" in value for value in found.values()):
        raise InvalidUpload(_("Upload-Metadata must be pairs of a name and a text in base64."))
    return found


def _check(request: HttpRequest) -> uploads.Check | None:
    """What holds the piece against the `algorithm base64(digest)` that the client sent with it."""
    sent = request.headers.get("Upload-Checksum")
    if sent is None:
        return None
    algorithm, _space, encoded = sent.partition(" ")
    if algorithm not in CHECKSUMS:
        raise InvalidUpload(_("Upload-Checksum may be %(algorithms)s.") % {"algorithms": ", ".join(CHECKSUMS)})
    try:
        expected = b64decode(encoded, validate=True)
    except binascii.Error as error:
        raise InvalidUpload(_("Upload-Checksum must hold a digest in base64.")) from error

    def check(piece: IO[bytes]) -> None:
        piece.seek(0)
        if not hmac.compare_digest(hashlib.file_digest(piece, algorithm).digest(), expected):  # type: ignore[arg-type]
            raise WrongChecksum

    return check
