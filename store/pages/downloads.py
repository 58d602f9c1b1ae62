"""A file of a version, streamed from the artifact store: whole, or the range that a client which was cut off still wants."""

from __future__ import annotations

import re
from dataclasses import dataclass

from asgiref.sync import sync_to_async
from django.db import connection
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.http import content_disposition_header, parse_etags

from store.catalog import artifacts, downloads
from store.catalog.downloads import File

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


@dataclass(frozen=True)
class _Wanted:
    """What of the file is answered; `status` is 200, 206, 304 or 416."""

    status: int
    start: int = 0
    stop: int = 0  # exclusive


async def download(request: HttpRequest, publisher: str, slug: str, number: str, path: str) -> HttpResponseBase:
    if request.method not in ("GET", "HEAD"):
        return HttpResponse(status=405, headers={"Allow": "GET, HEAD"})
    file, wanted = await sync_to_async(_begin)(request, publisher=publisher, slug=slug, number=number, path=path)
    headers = _headers(file, wanted)
    if request.method == "HEAD" or wanted.stop == wanted.start:
        return HttpResponse(status=wanted.status, headers=headers)
    chunks = await artifacts.stream(file.sha256, start=wanted.start, stop=wanted.stop)
    return StreamingHttpResponse(chunks, status=wanted.status, headers=headers)


def _begin(request: HttpRequest, **name: str) -> tuple[File, _Wanted]:
    """All that needs the database, so that its connection is given back before the first byte. Raises NotFound."""
    try:
        version, file = downloads.find(request.user, **name)
        wanted = _wanted(request, file)
        if request.method == "GET" and wanted.stop and not wanted.start:
            downloads.count(version, file)
        return file, wanted
    finally:
        if not connection.in_atomic_block:
            connection.close()


def _etag(file: File) -> str:
    return f'"{file.sha256}"'


def _headers(file: File, wanted: _Wanted) -> dict[str, str]:
    headers = {"ETag": _etag(file), "Accept-Ranges": "bytes", "Cache-Control": "private, no-cache"}  # the permission may end
    if wanted.status == 304:
        return headers
    headers |= {
        "Content-Type": "application/octet-stream",
        "Content-Length": str(wanted.stop - wanted.start),
        "Content-Disposition": content_disposition_header(True, file.path.rpartition("/")[2]) or "attachment",
    }
    if wanted.status == 206:
        headers["Content-Range"] = f"bytes {wanted.start}-{wanted.stop - 1}/{file.size_bytes}"
    elif wanted.status == 416:
        headers["Content-Range"] = f"bytes */{file.size_bytes}"
    return headers


def _wanted(request: HttpRequest, file: File) -> _Wanted:
    """By RFC 9110: what the client has already, one range, or the whole. Several ranges at once are answered with the whole."""
    known = [etag.removeprefix("W/") for etag in parse_etags(request.headers.get("if-none-match", ""))]
    if _etag(file) in known or "*" in known:
        return _Wanted(304)
    size = file.size_bytes
    match = _RANGE.fullmatch(request.headers.get("range", "")) if request.method == "GET" else None
    if match is None or match[0] == "bytes=-" or request.headers.get("if-range", _etag(file)) != _etag(file):
        return _Wanted(200, 0, size)
    first, last = match.groups()
    start = int(first) if first else max(size - int(last), 0)
    stop = min(int(last) + 1, size) if first and last else size
    if first and last and int(last) < start:
        return _Wanted(200, 0, size)  # no range at all
    return _Wanted(206, start, stop) if start < size else _Wanted(416)
