"""A request's events as they come, readable again from any entry, and always with an end.

Events live in a Valkey stream that the engine appends to. Whoever reads renews the request's lease; without a reader
the engine gives the request up. The reader also watches that somebody is still there to answer: what no worker took is sent
again, what was taken and not begun is tried again, and where that can't help the stream is ended with a plain failure.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from typing import Any

import redis.exceptions
from asgiref.sync import sync_to_async
from django.db import connection

from inference.protocol import (
    ALIVE_WITHIN_S,
    CANCELLED,
    GENERATION_WORKERS,
    LEASE_S,
    STREAM_TTL_S,
    FailureCode,
    Finished,
    claim_key,
    engine_key,
    lease_key,
    stream_key,
)
from store.generation import dispatch, settlement
from store.generation.errors import NoWorker
from store.valkey import async_client, client

BLOCK_MS = 1000
RENEW_EVERY_S = 3.0
OVERDUE_S = 10.0  # after its deadline
LAST_NUMBER = 2**62 + 1  # of an entry written here: behind all that a worker writes of the same attempt

Event = dict[str, Any]


@dataclass
class _Watch:
    """What a reader knows of the request it reads."""

    request: str
    order: dict[str, Any]  # GenerationRequest.to_json(), empty when its time is over
    attempt: int = 1
    engine: str = ""
    spoken: bool = False

    def next_attempt(self) -> None:
        self.attempt += 1
        self.engine = ""


async def read(request_id: str, *, after: str = "0") -> AsyncIterator[tuple[str, Event]]:
    """Yields (entry id, event) after the entry `after`, up to and with the finished event. Needs no database connection."""
    async for found in follow(request_id, after=after):
        if found is not None:
            yield found


async def follow(request_id: str, *, after: str = "0") -> AsyncIterator[tuple[str, Event] | None]:
    """As `read`, and None for each second of silence, so that the reader can show its own reader that it lives."""
    valkey, key = async_client(), stream_key(request_id)
    order = await _apart_from_cancellation(_order_of(request_id))
    watch = _Watch(request_id, order, attempt=order.get("attempt", 1))
    last, renewed_at = (after if "-" in after else "0-0"), 0.0
    while True:
        if time.monotonic() - renewed_at > RENEW_EVERY_S:
            await _apart_from_cancellation(valkey.expire(lease_key(request_id), LEASE_S))
            renewed_at = time.monotonic()
        found: Any = await _apart_from_cancellation(valkey.xread({key: last}, block=BLOCK_MS, count=200))
        for entry, fields in found[0][1] if found else []:
            last = entry
            event = json.loads(fields["event"])
            if event["type"] == "finished" and await _goes_on(watch, event):
                continue
            _note(watch, event)
            yield entry, event
            if event["type"] == "finished":
                return
        if not found and (lost := await _lost(watch)) is not None:
            yield await _end(lost)
            return
        if not found:
            yield None


async def _apart_from_cancellation(operation: Awaitable[Any]) -> Any:
    """The operation's result; cancelled, it stops waiting at once and the operation ends by itself, within a second.

    The client of Valkey was seen to lose a cancellation that reached it while it waited: then a reader whose own reader
    had hung up read on, and kept renewing the lease of an answer nobody wanted.
    """
    return await asyncio.shield(asyncio.ensure_future(operation))


def _note(watch: _Watch, event: Event) -> None:
    if event["type"] == "started":
        watch.engine, watch.attempt = event["engine"], event["attempt"]
    elif event["type"] == "delta":
        watch.spoken = True


async def _goes_on(watch: _Watch, event: Event) -> bool:
    """Whether another attempt follows this end."""
    if event["attempt"] < watch.attempt:
        return True
    if watch.spoken or event.get("failure") not in settlement.WORTH_ANOTHER_TRY:
        return False
    if await _try_again(watch.request, event["attempt"]):
        watch.attempt = event["attempt"]
        watch.next_attempt()
        return True
    return False


async def _lost(watch: _Watch) -> Finished | None:
    """The end of what no engine will end, None while further events may come. Sends or tries again where that can help."""
    valkey, request, attempt = async_client(), watch.request, watch.attempt
    if not watch.order or time.time() > watch.order["deadline"] + OVERDUE_S:
        claimed = await valkey.exists(claim_key(request, attempt))
        failure = FailureCode.INTERNAL if claimed or watch.spoken else FailureCode.OVERLOADED
        return settlement.unanswered(request, attempt=attempt, failure=failure, message="Nothing came in time.")
    trouble = await _trouble(watch)
    if trouble is None:
        return None
    if trouble == FailureCode.ENGINE_DIED and not watch.spoken and await _try_again(request, attempt):
        watch.next_attempt()
        return None
    if await valkey.get(lease_key(request)) == CANCELLED:
        return settlement.unanswered(request, attempt=attempt)
    message = "No worker took the request." if trouble == FailureCode.NO_WORKER else "The engine that answered has gone."
    return settlement.unanswered(request, attempt=attempt, failure=trouble, message=message)


async def _trouble(watch: _Watch) -> FailureCode | None:
    """Why nobody can be expected to answer this attempt; None while somebody can."""
    valkey, alive_since = async_client(), time.time() - ALIVE_WITHIN_S
    if watch.engine:
        return None if await valkey.exists(engine_key(watch.engine)) else FailureCode.ENGINE_DIED
    worker = await valkey.get(claim_key(watch.request, watch.attempt))
    if worker is not None:
        beat = await valkey.zscore(GENERATION_WORKERS, worker)
        return None if beat is not None and beat >= alive_since else FailureCode.ENGINE_DIED
    if await valkey.exists(dispatch.sent_key(watch.request)):
        return None
    if await valkey.zcount(GENERATION_WORKERS, alive_since, "+inf") and await _sent_again(watch.request):
        return None
    return FailureCode.NO_WORKER if await _withdrawn(watch.request, watch.attempt) else None


async def _end(event: Finished) -> tuple[str, Event]:
    """Ends the stream on behalf of an engine that no longer can, or never began; returns what it ends with."""
    valkey, key, entry = async_client(), stream_key(event.request), f"{event.attempt}-{LAST_NUMBER}"
    await valkey.set(lease_key(event.request), CANCELLED, ex=STREAM_TTL_S)  # nor is it tried again by whoever reads this end
    try:
        await valkey.xadd(key, {"event": json.dumps(event.to_json())}, id=entry)
    except redis.exceptions.ResponseError:  # another reader, or a worker, ended it first
        newest: Any = await valkey.xrevrange(key, count=1)
        entry, fields = newest[0]
        return entry, json.loads(fields["event"])
    await valkey.expire(key, STREAM_TTL_S)
    await sync_to_async(_apart)(settlement.finish_for_good, event)
    return entry, event.to_json()


async def _withdrawn(request: str, attempt: int) -> bool:
    return bool(await sync_to_async(dispatch.withdraw)(request, attempt=attempt))


async def _sent_again(request: str) -> bool:
    try:
        await sync_to_async(dispatch.send_again)(request)
    except NoWorker:
        return False
    return True


async def _try_again(request: str, attempt: int) -> bool:
    return bool(await sync_to_async(_apart)(dispatch.try_again, request, attempt=attempt))


def _apart(function: Any, *args: Any, **kwargs: Any) -> Any:
    """Calls the function and gives its database connection back: a stream may live for minutes."""
    try:
        return function(*args, **kwargs)
    finally:
        if not connection.in_atomic_block:
            connection.close()


async def _order_of(request: str) -> dict[str, Any]:
    raw = await async_client().get(dispatch.order_key(request))
    return dict(json.loads(raw)) if raw else {}


async def cancel(request_id: str) -> None:
    """Asks the engine to stop, which it does within one step. What no worker has taken yet ends here and now."""
    await async_client().set(lease_key(request_id), CANCELLED, ex=STREAM_TTL_S)
    order = await _order_of(request_id)
    if order and await _withdrawn(request_id, order["attempt"]):
        await _end(settlement.unanswered(request_id, attempt=order["attempt"]))


async def collect(request_id: str) -> tuple[str, Event]:
    """The whole text and the finished event."""
    pieces: list[str] = []
    async for _entry, event in read(request_id):
        if event["type"] == "delta":
            pieces.append(event["text"])
        if event["type"] == "finished":
            return "".join(pieces), event
    raise RuntimeError(f"the stream of {request_id} had no end")  # `read` always ends with one


def text_so_far(request_id: str) -> str:
    """What the attempt that counts has said, as far as the stream is still kept. For whoever stores the answer."""
    entries: Any = client().xrange(stream_key(request_id))
    attempt = entries[-1][0].partition("-")[0] if entries else ""
    events = (json.loads(fields["event"]) for entry, fields in entries if entry.partition("-")[0] == attempt)
    return "".join(event["text"] for event in events if event["type"] == "delta")


def has_ended(request_id: str) -> bool:
    """Whether the last event is there, though its settlement may still be on its way."""
    newest: Any = client().xrevrange(stream_key(request_id), count=1)
    return any(json.loads(fields["event"])["type"] == "finished" for _entry, fields in newest)


def is_kept(request_id: str) -> bool:
    """Whether the events can still be read."""
    return bool(client().exists(stream_key(request_id)))
