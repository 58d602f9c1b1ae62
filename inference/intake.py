"""How requests come to a generation worker: by the placement queue, and by the queue of each base it holds.

The queue of a base is read by a thread of its own, and only while the base's engine has room. So what waits for a base that
is full waits in the broker, where another worker that holds the base finds it, and holds up no other base of this one. The
base's shards of batches have a queue and a thread of their own in the same way.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import redis
import structlog
from celery import Celery
from kombu.mixins import ConsumerMixin
from structlog.contextvars import bound_contextvars

from inference.delivery import Delivery, ended, failed
from inference.engines import Engines, given_up
from inference.protocol import ALIVE_WITHIN_S, FailureCode, FinishReason, GenerationRequest, base_queue, batch_queue, claim_key
from inference.shards import Shards

log = structlog.get_logger(__name__)

CLAIM_KEPT_S = 3600
LEAVE_QUEUE_AFTER_S = ALIVE_WITHIN_S + 4.0  # a store that saw the last heartbeat may still send here for ALIVE_WITHIN_S


class BaseQueue(ConsumerMixin):
    """Reads one queue of a base until it is told to stop, and only while there is room. A broker that is away is waited for.

    `wait_for_room(base, within_s=…)` says whether one more message would be acted on at once, and waits for that.
    """

    def __init__(
        self, app: Celery, queue: str, *, base: str, wait_for_room: Callable[..., bool], take: Callable[[dict[str, Any]], object]
    ) -> None:
        self.connection = app.connection_for_read()
        self._queue = app.amqp.queues[queue]
        self._base = base
        self._wait_for_room = wait_for_room
        self._take = take
        threading.Thread(target=self.run, name=f"queue-{queue[:24]}", daemon=True).start()

    def get_consumers(self, consumer: Any, channel: Any) -> list[Any]:
        return [consumer([self._queue], callbacks=[self._receive], accept=["json"], prefetch_count=1)]

    def on_iteration(self) -> None:
        while not (self.should_stop or self._wait_for_room(self._base, within_s=1.0)):
            continue

    def _receive(self, body: Any, message: Any) -> None:
        message.ack()  # the store sends again what was lost
        try:
            (order, *_), _keywords, _embedded = body
            self._take(order)
        except Exception:  # the edge of the thread: one wrong message must not keep the others waiting
            log.exception("message not understood", base=self._base)


class Intake:
    """Claims requests for this worker, and reads the queues of exactly those bases that the store may believe are held here."""

    def __init__(self, app: Celery, *, worker: str, engines: Engines, delivery: Delivery, shards: Shards, valkey: redis.Redis) -> None:
        self._app = app
        self._worker = worker
        self._engines = engines
        self._delivery = delivery
        self._shards = shards
        self._valkey = valkey
        self._queues: dict[str, tuple[BaseQueue, ...]] = {}
        self._left_at: dict[str, float] = {}  # base -> when its engine went away
        self._stopped = False
        self._lock = threading.Lock()

    def take(self, message: dict[str, Any]) -> None:
        """Has a request answered. A second delivery of an attempt does nothing, nor does one that the store has withdrawn."""
        request = GenerationRequest.from_json(message)
        with bound_contextvars(request_id=request.trace, generation=request.id):
            if not self._valkey.set(claim_key(request.id, request.attempt), self._worker, nx=True, ex=CLAIM_KEPT_S):
                log.info("delivered twice", attempt=request.attempt)
                return
            try:
                self._begin(request)
            except Exception as error:  # from here on nobody else will answer it
                log.exception("request not begun")
                self._delivery.answer(failed(request, FailureCode.INTERNAL, f"{type(error).__name__}: {error}"))

    def _begin(self, request: GenerationRequest) -> None:
        if time.time() > request.deadline:
            self._delivery.answer(ended(request, FinishReason.DEADLINE))
        elif given_up([request], self._valkey):
            self._delivery.answer(ended(request, FinishReason.CANCELLED))
        else:
            log.info("generation begins", base=request.base, version=request.version, attempt=request.attempt)
            self._engines.submit(request)

    def base_changed(self, base: str, held: bool) -> None:
        """Reads the base's queues from now on, or leaves them a while after the base has gone."""
        with self._lock:
            if not held:
                self._left_at.setdefault(base, time.monotonic())
                return
            self._left_at.pop(base, None)
            if base not in self._queues and not self._stopped:
                self._queues[base] = (
                    BaseQueue(self._app, base_queue(base), base=base, wait_for_room=self._engines.wait_for_room, take=self.take),
                    BaseQueue(self._app, batch_queue(base), base=base, wait_for_room=self._shards.wait_for_room, take=self._shards.take),
                )

    def leave_queues(self) -> None:
        """Leaves those whose base has been gone for so long that no store sends anything here any more."""
        with self._lock:
            over = [base for base, left_at in self._left_at.items() if time.monotonic() - left_at > LEAVE_QUEUE_AFTER_S]
            for base in over:
                del self._left_at[base]
                self._leave(base)

    def stop(self) -> None:
        """Takes nothing more from the queues of bases."""
        with self._lock:
            self._stopped = True
            for base in list(self._queues):
                self._leave(base)

    def _leave(self, base: str) -> None:
        for left in self._queues.pop(base, ()):
            left.should_stop = True
