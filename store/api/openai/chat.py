"""`POST /v1/chat/completions`: one answer, in one piece or as a stream of server-sent events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import connection
from django.http import HttpRequest, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.views import APIView

from store import ratelimit
from store.accounts.models import User
from store.api.authentication import ApiKeyAuthentication, key_of
from store.api.errors import translated
from store.api.openai import shapes
from store.api.openai.chunks import DONE, Answer, failure_of, sse, sse_error
from store.api.openai.deprecation import deprecation_headers
from store.api.openai.endpoint import endpoint
from store.api.openai.parameters import ChatParameters, read_body, read_parameters
from store.api.openai.parameters import schema as parameters_schema
from store.api.openai.spoken import Spoken
from store.catalog import naming
from store.generation import admission, streams
from store.generation.models import Request

Events = AsyncIterator[tuple[str, dict[str, Any]]]


@endpoint("POST")
async def chat_completions(request: HttpRequest) -> HttpResponseBase:
    asked, answer, parameters = await _begun(request)
    return await (_streamed(asked, answer, parameters) if parameters.stream else _whole(asked, answer, parameters))


async def _begun(request: HttpRequest) -> tuple[Request, Answer, ChatParameters]:
    """As `_begin`; a client that leaves while it is being admitted leaves no generation behind."""
    beginning = asyncio.ensure_future(sync_to_async(_begin)(request))
    try:
        return await asyncio.shield(beginning)
    except asyncio.CancelledError:
        asked = (await beginning)[0]
        await streams.cancel(asked.public_id)
        raise


def _begin(request: HttpRequest) -> tuple[Request, Answer, ChatParameters]:
    """All that needs the database, so that its connection is given back before the answer begins."""
    said: dict[str, str] = {}
    try:
        key = key_of(request)
        parameters = read_parameters(read_body(request.body))
        version = naming.resolve(parameters.model, key.user)
        said = deprecation_headers(version)
        try:
            asked = admission.admit(
                version,
                messages=parameters.messages,
                sampling=parameters.sampling,
                tools=parameters.tools.told if parameters.tools else None,
                user=key.user,
                api_key=key,
                source=Request.Source.API,
            )
        finally:
            request.answer_headers = rate_headers(key.user) | said  # type: ignore[attr-defined]
    finally:
        if not connection.in_atomic_block:
            connection.close()
    fingerprint = f"fp_{version.digest[:12] or version.public_id}"
    return asked, Answer(request=asked.public_id, model=parameters.model, fingerprint=fingerprint, created=int(time.time())), parameters


def rate_headers(user: User) -> dict[str, str]:
    """What this person has left of the generations of a minute."""
    left = ratelimit.take(f"generation:user:{user.pk}", limit=settings.REQUESTS_PER_MINUTE, per_s=60, cost=0)
    full_in_s = (left.limit - left.remaining) * 60 / left.limit
    return {
        "x-ratelimit-limit-requests": str(left.limit),
        "x-ratelimit-remaining-requests": str(left.remaining),
        "x-ratelimit-reset-requests": f"{full_in_s:.0f}s",
    }


def _choices(asked: Request, parameters: ChatParameters) -> list[Spoken]:
    return [Spoken(asked.public_id, number, parameters.tools) for number in range(parameters.choices)]


async def _whole(asked: Request, answer: Answer, parameters: ChatParameters) -> HttpResponseBase:
    spoken = _choices(asked, parameters)
    finished: dict[str, Any] = {}
    try:
        async for _entry, event in streams.read(asked.public_id):
            if event["type"] == "delta":
                spoken[event.get("choice", 0)].hear(event)
            elif event["type"] == "finished":
                finished = event
    finally:
        if not finished:
            await streams.cancel(asked.public_id)
    if failure := failure_of(finished, rule=parameters.rule):
        raise failure
    for one in spoken:
        one.end(finished["reason"])
    return JsonResponse(answer.completion(spoken, finished), json_dumps_params={"ensure_ascii": False})


async def _streamed(asked: Request, answer: Answer, parameters: ChatParameters) -> HttpResponseBase:
    """Waits for the engine's first event, so that what it refuses still gets a status of its own."""
    events = streams.read(asked.public_id)
    begun = False
    try:
        _entry, first = await anext(events)
        if parameters.rule and first["type"] == "started":
            _entry, first = await anext(events)  # the engine begins, and then says whether it can follow the rule
        begun = True
    finally:
        if not begun:
            await streams.cancel(asked.public_id)
    if first["type"] == "finished" and (failure := failure_of(first, rule=parameters.rule)):
        raise failure
    response = StreamingHttpResponse(
        _chunks(asked, answer, parameters, first, events), content_type="text/event-stream", headers={"cache-control": "no-store"}
    )
    response["x-accel-buffering"] = "no"  # a proxy must not gather tokens
    return response


async def _chunks(
    asked: Request, answer: Answer, parameters: ChatParameters, first: dict[str, Any], events: Events
) -> AsyncIterator[bytes]:
    ended = False
    spoken = _choices(asked, parameters)
    try:
        for one in spoken:
            yield sse(answer.chunk(one.number, {"role": "assistant", "content": ""}))
        async for event in _following(first, events):
            if event["type"] == "delta":
                one = spoken[event.get("choice", 0)]
                added, logprobs = one.hear(event), event.get("logprobs")
                if added or logprobs:
                    yield sse(answer.chunk(one.number, added or {"content": ""}, logprobs=logprobs))
                if one.finish_reason:
                    yield sse(answer.chunk(one.number, {}, finish_reason=one.finish_reason))
            elif event["type"] == "finished":
                ended = True
                if failure := failure_of(event, rule=parameters.rule):
                    yield sse_error(failure)
                    return
                for one in (one for one in spoken if one.finish_reason is None):
                    if added := one.end(event["reason"]):
                        yield sse(answer.chunk(one.number, added))
                    yield sse(answer.chunk(one.number, {}, finish_reason=one.finish_reason))
                if parameters.include_usage:
                    yield sse(answer.usage_chunk(event))
        yield DONE
    except Exception as error:
        yield sse_error(translated(error))
    finally:
        if not ended:  # the client went away, or the stream broke
            await streams.cancel(asked.public_id)


async def _following(first: dict[str, Any], events: Events) -> AsyncIterator[dict[str, Any]]:
    yield first
    if first["type"] == "finished":
        return
    async for _entry, event in events:
        yield event
        if event["type"] == "finished":
            return


_RESPONSES: dict[Any, Any] = {
    (200, "application/json"): OpenApiResponse(shapes.COMPLETION, description=_("The answer.")),
    (200, "text/event-stream"): OpenApiResponse(shapes.CHUNK, description=_("One event of the stream.")),
    **shapes.errors(400, 401, 402, 404, 410, 429, 503),
}


class _Reference(APIView):
    """Describes the view above in the schema; it never answers."""

    authentication_classes = [ApiKeyAuthentication]

    @extend_schema(
        operation_id="create_chat_completion",
        tags=["v1"],
        summary=_("Create a chat completion"),
        description=_("An answer to a conversation. With stream set it arrives as server-sent events, ended by data: [DONE]."),
        request={"application/json": parameters_schema()},
        responses=_RESPONSES,
    )
    def post(self, request: object) -> None: ...


chat_completions.cls, chat_completions.initkwargs = _Reference, {}  # type: ignore[attr-defined]
