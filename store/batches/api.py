"""`/v1/batches`, as the OpenAI clients know it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from store.accounts.models import User
from store.api.authentication import ApiKeyAuthentication, caller
from store.api.openai.fields import Missing, Text, TextMap, Unknown, Unsupported, wrong_type
from store.api.openai.lists import PARAMETERS, page_of
from store.api.openai.shapes import BATCH, errors, listed
from store.batches import ending, starting
from store.batches.lines import ENDPOINTS
from store.batches.models import Batch
from store.errors import NotFound

State = Batch.State
_METADATA = TextMap(most=16, max_chars=512)
_REQUIRED = ("input_file_id", "endpoint", "completion_window")
_ONE = [OpenApiParameter("batch", str, OpenApiParameter.PATH)]
_CREATE = {
    "type": "object",
    "required": list(_REQUIRED),
    "properties": {
        "input_file_id": {"type": "string"},
        "endpoint": {"type": "string", "enum": list(ENDPOINTS)},
        "completion_window": {"type": "string", "enum": list(starting.WINDOWS)},
        "metadata": _METADATA.schema(),
    },
}


def shown(batch: Batch) -> dict[str, Any]:
    wrong = {"object": "list", "data": [{**error, "message": gettext(error["message"])} for error in batch.errors]}
    ended = {f"{state}_at": _time(batch.ended_at if batch.state == state else None) for state in Batch.ENDED}
    return {
        "id": batch.public_id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "model": batch.model or None,
        "errors": wrong if batch.errors else None,
        "input_file_id": batch.input_file,
        "completion_window": "24h",
        "status": batch.state,
        "output_file_id": batch.output_file.public_id if batch.output_file else None,
        "error_file_id": batch.error_file.public_id if batch.error_file else None,
        "created_at": _time(batch.created_at),
        "in_progress_at": _time(batch.in_progress_at),
        "finalizing_at": _time(batch.finalizing_at),
        "cancelling_at": _time(batch.cancelling_at),
        **ended,
        "expires_at": _time(batch.expires_at),
        "request_counts": {"total": batch.total, "completed": batch.completed, "failed": batch.failed},
        "usage": {
            "input_tokens": batch.prompt_tokens,
            "input_tokens_details": {"cached_tokens": batch.cached_tokens},
            "output_tokens": batch.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": batch.prompt_tokens + batch.completion_tokens,
        },
        "metadata": batch.metadata or None,
    }


def own_batch(user: User, public_id: str) -> Batch:
    """Raises NotFound, also for somebody else's."""
    found = Batch.objects.select_related("output_file", "error_file").filter(user=user, public_id=public_id).first()
    if found is None:
        raise NotFound(_("You have no batch by that id."), param="batch_id")
    return found


def _time(when: datetime | None) -> int | None:
    return int(when.timestamp()) if when is not None else None


def _asked(body: Any) -> dict[str, Any]:
    """What `starting.start` is called with. Raises InvalidValue that names what is wrong."""
    if not isinstance(body, Mapping):
        raise wrong_type("body", "object")
    given = {name: value for name, value in body.items() if value is not None}
    for name in given:
        if name == "output_expires_after":
            raise Unsupported(gettext("'%(param)s' is not supported by this store.") % {"param": name}, param=name)
        if name not in (*_REQUIRED, "metadata"):
            raise Unknown(gettext("Unrecognized request argument: '%(param)s'.") % {"param": name[:100]}, param=name[:100])
    for name in _REQUIRED:
        if name not in given:
            raise Missing(gettext("You must provide '%(param)s'.") % {"param": name}, param=name)
    text = {name: Text(100).read(given[name], name) for name in _REQUIRED}
    return {
        "file_id": text["input_file_id"],
        "endpoint": text["endpoint"],
        "window": text["completion_window"],
        "metadata": _METADATA.read(given.get("metadata", {}), "metadata"),
    }


class Batches(APIView):
    authentication_classes = [ApiKeyAuthentication]

    @extend_schema(
        operation_id="list_batches",
        tags=["v1"],
        summary=_("List batches"),
        description=_("Your batches, newest first."),
        parameters=PARAMETERS,
        responses={200: listed(BATCH), **errors(400, 401)},
    )
    def get(self, request: Request) -> Response:
        rows = Batch.objects.filter(user=caller(request)).select_related("output_file", "error_file")
        return Response(page_of(rows, request.query_params, shown))

    @extend_schema(
        operation_id="create_batch",
        tags=["v1"],
        summary=_("Start a batch"),
        description=_("Has the requests of a file answered within a day, whenever there is nothing more urgent. All of them ask one GPT."),
        request={"application/json": _CREATE},
        responses={200: BATCH, **errors(400, 401, 409)},
    )
    def post(self, request: Request) -> Response:
        return Response(shown(starting.start(caller(request), **_asked(request.data))))


class OneBatch(APIView):
    authentication_classes = [ApiKeyAuthentication]

    @extend_schema(
        operation_id="retrieve_batch",
        tags=["v1"],
        summary=_("Retrieve a batch"),
        description=_("How far it is, and where its results are."),
        parameters=_ONE,
        responses={200: BATCH, **errors(401, 404)},
    )
    def get(self, request: Request, batch: str) -> Response:
        return Response(shown(own_batch(caller(request), batch)))


class CancelBatch(APIView):
    authentication_classes = [ApiKeyAuthentication]

    @extend_schema(
        operation_id="cancel_batch",
        tags=["v1"],
        summary=_("Cancel a batch"),
        description=_("What was answered by then is in its files, once its status is cancelled."),
        parameters=_ONE,
        request=None,
        responses={200: BATCH, **errors(401, 404, 409)},
    )
    def post(self, request: Request, batch: str) -> Response:
        ending.cancel(caller(request), own_batch(caller(request), batch))
        return Response(shown(own_batch(caller(request), batch)))
