"""`/v1/files`: the requests that a person brings for batches, and what was answered to them."""

from __future__ import annotations

from typing import Any

from asgiref.sync import sync_to_async
from django.db import connection
from django.http import HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from store.accounts.models import User
from store.api.authentication import ApiKeyAuthentication, caller, key_of
from store.api.errors import InvalidValue
from store.api.openai.endpoint import endpoint
from store.api.openai.fields import Missing
from store.api.openai.lists import PARAMETERS, page_of
from store.api.openai.shapes import DELETED_FILE, FILE, errors, listed
from store.catalog import artifacts
from store.errors import NotFound
from store.jobs import files
from store.jobs.models import UploadedFile

Purpose = UploadedFile.Purpose
_UPLOAD = {
    "type": "object",
    "required": ["file", "purpose"],
    "properties": {"file": {"type": "string", "format": "binary"}, "purpose": {"type": "string", "enum": [Purpose.BATCH.value]}},
}
_ONE = [OpenApiParameter("file", str, OpenApiParameter.PATH)]


def shown(file: UploadedFile) -> dict[str, Any]:
    return {
        "id": file.public_id,
        "object": "file",
        "bytes": file.size_bytes,
        "created_at": int(file.created_at.timestamp()),
        "filename": file.name,
        "purpose": file.purpose,
        "status": "processed",
    }


def own_file(user: User, public_id: str) -> UploadedFile:
    """Raises NotFound, also for somebody else's."""
    found = files.of_person(user).filter(public_id=public_id).first()
    if found is None:
        raise NotFound(_("You have no file by that id."), param="file_id")
    return found


class Files(APIView):
    authentication_classes = [ApiKeyAuthentication]
    parser_classes = [MultiPartParser]

    @extend_schema(
        operation_id="list_files",
        tags=["v1"],
        summary=_("List files"),
        description=_("Your own files, newest first."),
        parameters=[*PARAMETERS, OpenApiParameter("purpose", str)],
        responses={200: listed(FILE), **errors(400, 401)},
    )
    def get(self, request: Request) -> Response:
        rows = files.of_person(caller(request))
        if purpose := request.query_params.get("purpose"):
            rows = rows.filter(purpose=purpose)
        return Response(page_of(rows, request.query_params, shown))

    @extend_schema(
        operation_id="create_file",
        tags=["v1"],
        summary=_("Upload a file"),
        description=_("A file of requests for a batch, one JSON object on each line. The same file again is the one that is there."),
        request={"multipart/form-data": _UPLOAD},
        responses={200: FILE, **errors(400, 401, 409, 413)},
    )
    def post(self, request: Request) -> Response:
        given: Any = request.data
        purpose, brought = given.get("purpose"), request.FILES.get("file")
        if brought is None:
            raise Missing(gettext("You must provide '%(param)s'.") % {"param": "file"}, param="file")
        if purpose != Purpose.BATCH:
            message = gettext("'%(param)s' must be one of %(choices)s.") % {"param": "purpose", "choices": Purpose.BATCH.value}
            raise InvalidValue(message, param="purpose")
        file = files.save(caller(request), None, name=brought.name or "", stream=brought.file, purpose=Purpose.BATCH)
        return Response(shown(file))


class File(APIView):
    authentication_classes = [ApiKeyAuthentication]

    @extend_schema(
        operation_id="retrieve_file",
        tags=["v1"],
        summary=_("Retrieve a file"),
        description=_("What is known of one of your own files."),
        parameters=_ONE,
        responses={200: FILE, **errors(401, 404)},
    )
    def get(self, request: Request, file: str) -> Response:
        return Response(shown(own_file(caller(request), file)))

    @extend_schema(
        operation_id="delete_file",
        tags=["v1"],
        summary=_("Delete a file"),
        description=_("It is among your files no more. A batch that was begun with it goes on."),
        parameters=_ONE,
        responses={200: DELETED_FILE, **errors(401, 404)},
    )
    def delete(self, request: Request, file: str) -> Response:
        files.delete(caller(request), own_file(caller(request), file))
        return Response({"id": file, "object": "file", "deleted": True})


@endpoint("GET")
async def file_content(request: HttpRequest, file: str) -> HttpResponseBase:
    found = await sync_to_async(_find)(request, file)
    return await content_of(found)


def _find(request: HttpRequest, file: str) -> UploadedFile:
    """All that needs the database, so that its connection is given back before the first byte."""
    try:
        return own_file(key_of(request).user, file)
    finally:
        if not connection.in_atomic_block:
            connection.close()


async def content_of(file: UploadedFile) -> HttpResponseBase:
    """The file's bytes as they come."""
    chunks = await artifacts.stream(file.sha256, start=0, stop=file.size_bytes)
    headers = {"content-length": str(file.size_bytes), "cache-control": "private, no-store"}
    return StreamingHttpResponse(chunks, content_type="application/jsonl; charset=utf-8", headers=headers)


_RESPONSES: dict[Any, Any] = {
    (200, "application/jsonl"): OpenApiResponse({"type": "string", "format": "binary"}, description=_("The file.")),
    **errors(401, 404),
}


class _Reference(APIView):
    """Describes the view above in the schema; it never answers."""

    authentication_classes = [ApiKeyAuthentication]

    @extend_schema(
        operation_id="retrieve_file_content",
        tags=["v1"],
        summary=_("Retrieve a file's content"),
        description=_("The file itself."),
        parameters=_ONE,
        responses=_RESPONSES,
    )
    def get(self, request: object, file: str) -> None: ...


file_content.cls, file_content.initkwargs = _Reference, {}  # type: ignore[attr-defined]
