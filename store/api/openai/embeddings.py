"""`POST /v1/embeddings`: a vector for each text. Each is a request of its own, admitted, metered and paid as an answer is."""

from __future__ import annotations

import asyncio
import base64
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from asgiref.sync import async_to_sync, sync_to_async
from django.conf import settings
from django.db import connection
from django.http import HttpRequest, JsonResponse
from django.http.response import HttpResponseBase
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.views import APIView

from store.api.authentication import ApiKeyAuthentication, key_of
from store.api.errors import InvalidValue
from store.api.openai import shapes
from store.api.openai.chat import rate_headers
from store.api.openai.chunks import failure_of
from store.api.openai.deprecation import deprecation_headers
from store.api.openai.endpoint import endpoint
from store.api.openai.fields import Field, Missing, OneOrMoreTexts, Schema, Text, Unknown, Whole
from store.api.openai.parameters import read_body
from store.catalog import naming
from store.generation import embedding, streams
from store.generation.errors import BadMessages
from store.generation.models import Request

MOST_TEXTS = 32
FORMATS = ("float", "base64")
FIELDS: dict[str, Field] = {
    "model": Text(200, min_chars=1),
    "input": OneOrMoreTexts(most=MOST_TEXTS, max_chars=settings.MAX_PROMPT_CHARS),
    "encoding_format": Text(10),
    "dimensions": Whole(1, 65_536),
    "user": Text(512),
}


@dataclass(frozen=True)
class Parameters:
    model: str
    texts: list[str]
    dimensions: int | None = None
    as_base64: bool = False


@endpoint("POST")
async def embeddings(request: HttpRequest) -> HttpResponseBase:
    beginning = asyncio.ensure_future(sync_to_async(_begin)(request))
    try:
        asked, parameters = await asyncio.shield(beginning)
    except asyncio.CancelledError:
        await _cancel((await beginning)[0])
        raise
    reading = [asyncio.ensure_future(_vector(one)) for one in asked]
    try:
        found = await asyncio.gather(*reading)
    except BaseException:  # one failed, or the client went away: nobody waits for the others
        for one in reading:
            one.cancel()
        await _cancel(asked)
        raise
    return JsonResponse(_answer(parameters, found))


def _begin(request: HttpRequest) -> tuple[list[Request], Parameters]:
    """All that needs the database. Of texts of which one is refused none is begun to the end."""
    said: dict[str, str] = {}
    asked: list[Request] = []
    try:
        key = key_of(request)
        parameters = read_parameters(read_body(request.body))
        version = naming.resolve(parameters.model, key.user)
        said = deprecation_headers(version)
        who: Any = {"user": key.user, "api_key": key, "source": Request.Source.API}
        try:
            for text in parameters.texts:
                one = embedding.admit(version, text=text, dimensions=parameters.dimensions, **who)
                asked.append(one)
        except BadMessages as error:
            raise BadMessages(str(error), param=f"input[{len(asked)}]") from error
        finally:
            request.answer_headers = rate_headers(key.user) | said  # type: ignore[attr-defined]
    except BaseException:
        async_to_sync(_cancel)(asked)
        raise
    finally:
        if not connection.in_atomic_block:
            connection.close()
    return asked, parameters


async def _cancel(asked: list[Request]) -> None:
    for one in asked:
        await streams.cancel(one.public_id)


async def _vector(asked: Request) -> tuple[str, dict[str, int]]:
    """The vector as the engine told it, and the usage."""
    vector = ""
    async for _entry, event in streams.read(asked.public_id):
        if event["type"] == "embedded":
            vector = event["vector"]
        elif event["type"] == "finished":
            if failure := failure_of(event, rule=""):
                failure.param = "input" if failure.param == "messages" else failure.param
                raise failure
            if not vector:
                raise RuntimeError(f"the stream of {asked.public_id} told no vector: its worker is older than the store")
            return vector, event["usage"]
    raise RuntimeError(f"the stream of {asked.public_id} had no end")  # `read` always ends with one


def _answer(parameters: Parameters, found: list[tuple[str, dict[str, int]]]) -> dict[str, Any]:
    read = sum(usage["prompt_tokens"] for _vector, usage in found)
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": vector if parameters.as_base64 else _numbers(vector)}
            for index, (vector, _usage) in enumerate(found)
        ],
        "model": parameters.model,
        "usage": {"prompt_tokens": read, "total_tokens": read},
    }


def _numbers(vector: str) -> list[float]:
    raw = base64.b64decode(vector)
    return list(struct.unpack(f"<{len(raw) // 4}f", raw))


def read_parameters(body: Mapping[str, Any]) -> Parameters:
    """Raises InvalidValue, its `param` naming the first parameter that can't be used."""
    given = {name: value for name, value in body.items() if value is not None}
    for name in given:
        if name not in FIELDS:
            raise Unknown(_("Unrecognized request argument: '%(param)s'.") % {"param": name[:100]}, param=name[:100])
    for required in ("model", "input"):
        if required not in given:
            raise Missing(_("You must provide '%(param)s'.") % {"param": required}, param=required)
    read = {name: FIELDS[name].read(value, name) for name, value in given.items()}
    if not read["input"]:
        raise InvalidValue(_("'%(param)s' must not be empty.") % {"param": "input"}, param="input")
    if (form := read.get("encoding_format", "float")) not in FORMATS:
        raise InvalidValue(_("'encoding_format' must be float or base64."), param="encoding_format")
    return Parameters(read["model"], read["input"], read.get("dimensions"), as_base64=form == "base64")


def schema() -> Schema:
    properties = {name: field.schema() for name, field in FIELDS.items()}
    properties["encoding_format"] = {"type": "string", "enum": list(FORMATS), "default": "float"}
    return {"type": "object", "required": ["model", "input"], "properties": properties}


_RESPONSES: dict[Any, Any] = {
    (200, "application/json"): OpenApiResponse(shapes.EMBEDDINGS, description=gettext_lazy("The vectors.")),
    **shapes.errors(400, 401, 402, 404, 410, 429, 503),
}


class _Reference(APIView):
    """Describes the view above in the schema; it never answers."""

    authentication_classes = [ApiKeyAuthentication]

    @extend_schema(
        operation_id="create_embeddings",
        tags=["v1"],
        summary=gettext_lazy("Create embeddings"),
        description=gettext_lazy(
            "A vector of length 1 for each text: the mean of the hidden states a GPT has of it, of which dimensions keeps the first. "
            "Each text counts as a request, and what is read is paid."
        ),
        request={"application/json": schema()},
        responses=_RESPONSES,
    )
    def post(self, request: object) -> None: ...


embeddings.cls, embeddings.initkwargs = _Reference, {}  # type: ignore[attr-defined]
