"""Where a request's events go: each to the request's Valkey stream, the last one also to the store, or to the shard it is of.

Entries are numbered `attempt-number`. So an append that is repeated because its answer was lost takes effect once, and
an engine that was taken for dead cannot write into a stream that a later attempt has begun.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import redis
import redis.exceptions
import structlog

from inference.protocol import (
    EVENTS_QUEUE,
    GENERATION_FINISHED,
    STREAM_TTL_S,
    FailureCode,
    Finished,
    FinishReason,
    GenerationRequest,
    Usage,
    stream_key,
)

log = structlog.get_logger(__name__)

LAST_NUMBER = 2**62  # of the entry that ends a stream on behalf of an engine that no longer can
RETRY_FIRST_S = 0.2
RETRY_AT_MOST_S = 5.0


def connect(url: str) -> redis.Redis:
    """A client whose replies are text and whose calls give up soon: a heartbeat must not wait for a dead server."""
    return redis.Redis.from_url(url, decode_responses=True, socket_timeout=5, socket_connect_timeout=3)


def append(pipeline: Any, request: str, *, attempt: int, number: int, event: Mapping[str, Any]) -> None:
    """Queues one XADD, and the stream's expiry with its first and last entry."""
    key = stream_key(request)
    pipeline.xadd(key, {"event": json.dumps(event, ensure_ascii=False)}, id=f"{attempt}-{number}")
    if number == 1 or event["type"] == "finished":
        pipeline.expire(key, STREAM_TTL_S)


def failed(request: GenerationRequest, code: FailureCode, message: str, *, detail: Mapping[str, Any] | None = None) -> Finished:
    """The last event of a request that no engine answered to its end."""
    return Finished(
        request=request.id,
        reason=FinishReason.ERROR,
        usage=Usage().to_json(),
        attempt=request.attempt,
        failure=code,
        message=message,
        detail=dict(detail or {}),
    )


def ended(request: GenerationRequest, reason: FinishReason) -> Finished:
    """The last event of a request that ended before an engine began it."""
    return Finished(request=request.id, reason=reason, usage=Usage().to_json(), attempt=request.attempt)


@dataclass(frozen=True)
class _Parcel:
    event: dict[str, Any]  # Finished.to_json()
    in_stream: bool  # already appended by its engine


class Delivery:
    """Brings last events to the store, one after the other and as often as it takes, from a thread of its own.

    `send` publishes a task on the store's event queue and raises while the broker is away.
    """

    def __init__(self, valkey: redis.Redis, send: Callable[[dict[str, Any]], None]) -> None:
        self._valkey = valkey
        self._send = send
        self._parcels: queue.Queue[_Parcel] = queue.Queue()
        self._listeners: dict[tuple[str, int], Callable[[dict[str, Any]], None]] = {}  # by request and attempt
        threading.Thread(target=self._deliver_all, name="delivery", daemon=True).start()

    def listen(self, request: GenerationRequest, listener: Callable[[dict[str, Any]], None]) -> None:
        """Has the last event of this attempt told to `listener` instead of the store: for what the store knows by its job."""
        self._listeners[request.id, request.attempt] = listener

    def settle(self, event: dict[str, Any]) -> None:
        """Sends a last event that its engine has appended to the stream."""
        self._parcels.put(_Parcel(event, in_stream=True))

    def answer(self, event: Finished) -> None:
        """Appends a last event to the stream, unless one is there already, and sends the one that counts."""
        self._parcels.put(_Parcel(event.to_json(), in_stream=False))

    def flush(self, *, within_s: float) -> bool:
        """Waits until everything has been delivered; False when time ran out."""
        deadline = time.monotonic() + within_s
        while self._parcels.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.02)
        return not self._parcels.unfinished_tasks

    def _deliver_all(self) -> None:
        while True:
            parcel = self._parcels.get()
            pause_s = RETRY_FIRST_S
            while not self._delivered(parcel):
                time.sleep(pause_s)
                pause_s = min(pause_s * 2, RETRY_AT_MOST_S)
            self._parcels.task_done()

    def _delivered(self, parcel: _Parcel) -> bool:
        event = parcel.event
        try:
            if not parcel.in_stream:
                event = self._end_stream(event)
            (self._listeners.pop((parcel.event["request"], parcel.event["attempt"]), None) or self._send)(event)
        except Exception as error:  # whatever a broker's client raises: the event is kept and sent again
            log.warning("last event not delivered yet", generation=event["request"], error=repr(error))
            return False
        return True

    def _end_stream(self, event: dict[str, Any]) -> dict[str, Any]:
        """Appends the event; returns what the stream ended with before, if it had ended."""
        request, attempt = event["request"], event["attempt"]
        newest: Any = self._valkey.xrevrange(stream_key(request), count=1)
        for _, fields in newest:
            last = json.loads(fields["event"])
            if last["type"] == "finished" and last["attempt"] >= attempt:
                return dict(last)
        pipeline = self._valkey.pipeline(transaction=False)
        append(pipeline, request, attempt=attempt, number=LAST_NUMBER, event=event)
        for reply in pipeline.execute(raise_on_error=False):
            if isinstance(reply, Exception) and not is_late(reply):
                raise reply
        return event


def is_late(reply: object) -> bool:
    """True for the refusal of an entry that is there already or that a later attempt has overtaken."""
    return isinstance(reply, redis.exceptions.ResponseError) and "equal or smaller" in str(reply)


def celery_sender(app: Any) -> Callable[[dict[str, Any]], None]:
    """Publishes GENERATION_FINISHED with the worker's Celery application."""

    def send(event: dict[str, Any]) -> None:
        app.send_task(GENERATION_FINISHED, args=[event], queue=EVENTS_QUEUE, ignore_result=True, retry=False)

    return send
