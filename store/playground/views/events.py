"""The resumable event stream of a request, for whoever made it: server-sent events, numbered as in Valkey."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from asgiref.sync import sync_to_async
from django.db import connection
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.template.loader import render_to_string
from django.utils import translation

from inference.protocol import Finished, Usage
from store.accounts.visitors import visitor_of
from store.generation import settlement, streams
from store.generation.models import Request
from store.playground import answers, conversations, embeds, meters

_ENTRY = re.compile(r"\d{1,10}-\d{1,19}")
Find = Callable[[], Request]
KEEP_ALIVE_EVERY_S = 10  # of silence: a proxy closes what says nothing


@dataclass(frozen=True)
class _Reading:
    """All that the stream needs to know of the database."""

    request: Request
    language: str
    spent_micro: int  # by the conversation, before this answer
    ended: dict[str, Any] | None = None  # the finished event when the stream itself is gone
    text: str = ""  # then


async def events(request: HttpRequest, public_id: str) -> HttpResponseBase:
    return await _stream(request, partial(conversations.find_request, public_id, user=request.user, visitor=visitor_of(request)))


async def events_of_embed(request: HttpRequest, ticket: str) -> HttpResponseBase:
    """For a frame on another site, which has no cookie: the address itself says that it was given to whoever asked."""
    response = await _stream(request, partial(embeds.find_request, ticket))
    response["Access-Control-Allow-Origin"] = "*"
    return response


async def _stream(request: HttpRequest, find: Find) -> HttpResponseBase:
    if request.method not in ("GET", "HEAD"):
        return HttpResponse(status=405, headers={"Allow": "GET, HEAD"})
    reading = await sync_to_async(_begin)(find)
    after = request.headers.get("last-event-id") or request.GET.get("after", "")
    body = _ended(reading) if reading.ended else _relay(reading, after if _ENTRY.fullmatch(after) else "0")
    response = StreamingHttpResponse(body, content_type="text/event-stream; charset=utf-8")
    response["Cache-Control"] = "no-cache, no-store, private"
    response["X-Accel-Buffering"] = "no"  # a proxy must not gather tokens
    return response


def _begin(find: Find) -> _Reading:
    """Reads the database and gives its connection back: the stream may live for minutes. Raises NotFound for a stranger."""
    try:
        asked = find()
        language = translation.get_language() or "en"
        message = asked.messages.select_related("conversation", "request").first()
        spent_micro = conversations.spent_micro(message.conversation) - asked.cost_micro if message else 0
        if asked.state == Request.State.ADMITTED or streams.is_kept(asked.public_id):
            return _Reading(asked, language, spent_micro)
        return _Reading(asked, language, spent_micro, _as_event(asked), answers.spoken(message) if message else "")
    finally:
        if not connection.in_atomic_block:
            connection.close()


def _as_event(asked: Request) -> dict[str, Any]:
    usage = Usage(asked.prompt_tokens, asked.completion_tokens, asked.cached_tokens)
    return Finished(
        request=asked.public_id,
        reason=asked.finish_reason or "error",
        usage=usage.to_json(),
        failure=asked.failure or None,
        first_token_ms=asked.first_token_ms,
        duration_ms=asked.duration_ms or 0.0,
    ).to_json()


async def _ended(reading: _Reading) -> AsyncIterator[bytes]:
    assert reading.ended is not None
    yield _sse("finished", _finished(reading, reading.ended, reading.text))


async def _relay(reading: _Reading, after: str) -> AsyncIterator[bytes]:
    silence_s = 0
    yield b"retry: 1000\n\n"
    async for found in streams.follow(reading.request.public_id, after=after):
        silence_s = silence_s + 1 if found is None else 0
        if found is None:
            if silence_s % KEEP_ALIVE_EVERY_S == 0:
                yield b": still waiting\n\n"
            continue
        entry, event = found
        if event["type"] == "finished":
            text = await sync_to_async(_settled, thread_sensitive=False)(reading.request.public_id, event)
            yield _sse("finished", _finished(reading, event, text), entry)
        elif event["type"] == "delta":
            yield _sse("delta", {"text": event["text"], "tokens": event["tokens"]}, entry)
        else:
            yield _sse("started", {"prompt_tokens": event["prompt_tokens"], "attempt": event["attempt"], **_prices(reading.request)}, entry)


def _prices(asked: Request) -> dict[str, int]:
    """From which the page tells the cost as the answer is written; none where it is free."""
    if not (asked.input_price_micro or asked.output_price_micro):
        return {}
    return {"input_price_micro": asked.input_price_micro, "output_price_micro": asked.output_price_micro}


def _settled(request: str, event: dict[str, Any]) -> str:
    """The text of the answer. Records its end here too, so that what the reader does next finds it recorded."""
    try:
        settlement.finish(Finished.from_json(event))
        return streams.text_so_far(request)
    finally:
        connection.close()


def _finished(reading: _Reading, event: dict[str, Any], text: str) -> dict[str, Any]:
    """The answer as the page will show it from now on, in the reader's language."""
    usage = event["usage"]
    with translation.override(reading.language):
        meter = meters.of_event(event, reading.request)
        return {
            "reason": event["reason"],
            "trouble": meter.trouble,
            "text": text,
            "html": render_to_string("playground/answer.html", {"text": text, "meter": meter}),
            "meter": render_to_string("playground/meter.html", {"meter": meter}),
            "used_tokens": usage.get("prompt_tokens", 0) + usage.get("completion_tokens", 0),
            "spent": render_to_string("playground/spent.html", {"spent_micro": reading.spent_micro + (meter.cost_micro or 0)}),
        }


def _sse(name: str, value: dict[str, Any], entry: str = "") -> bytes:
    number = f"id: {entry}\n" if entry else ""
    return f"{number}event: {name}\ndata: {json.dumps(value, ensure_ascii=False)}\n\n".encode()
