"""Sends a request to the workers: to the queue of its base where one holds it, else to whoever can load the base.

A message may be lost with the worker that had fetched it, or with the broker. So an attempt that nobody has claimed for a
while is sent once more, and may arrive twice: whoever claims it first has it, a worker to answer it or the store to end it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import redis.exceptions
import structlog
from django.db.models import F
from kombu.exceptions import OperationalError

from inference.protocol import (
    ALIVE_WITHIN_S,
    CANCELLED,
    GENERATE,
    LEASE_S,
    LOAD_QUEUE,
    GenerationRequest,
    base_queue,
    claim_key,
    holders_key,
    lease_key,
    stream_key,
)
from store.celery import app
from store.generation.errors import NoWorker
from store.generation.models import Request
from store.valkey import client

log = structlog.get_logger(__name__)

MAX_ATTEMPTS = 2
UNCLAIMED_AFTER_S = 20  # a message that no worker took for so long is sent again: it may be lost
CLAIMED_BY_STORE = "store"
CLAIM_KEPT_S = 3600


def order_key(request: str) -> str:
    """String: the request as it was sent, for a further attempt; expires with its deadline."""
    return f"requests:{request}:order"


def sent_key(request: str) -> str:
    """String, expiring after UNCLAIMED_AFTER_S: the attempt was sent so lately that its claim may be on its way."""
    return f"requests:{request}:sent"


def send(order: GenerationRequest) -> None:
    """Makes the attempt known to the workers. Called on commit. Raises NoWorker when it cannot be sent."""
    valkey = client()
    with _no_worker_without_broker(order.id):
        valkey.set(order_key(order.id), json.dumps(order.to_json()), ex=_lifetime_s(order))
        valkey.set(lease_key(order.id), "reading", ex=LEASE_S, nx=True)  # never over a cancellation
        valkey.set(sent_key(order.id), "sent", ex=UNCLAIMED_AFTER_S)
        _publish(order)


def send_again(request: str) -> None:
    """Sends the attempt under way once more, unless that was done lately. Raises NoWorker when it cannot be sent."""
    valkey = client()
    with _no_worker_without_broker(request):
        order: Any = valkey.get(order_key(request))
        if order and valkey.set(sent_key(request), "sent", nx=True, ex=UNCLAIMED_AFTER_S):
            log.warning("generation sent again: nobody took it", generation=request)
            _publish(GenerationRequest.from_json(json.loads(order)))


def _publish(order: GenerationRequest) -> None:
    app.send_task(GENERATE, args=[order.to_json()], queue=_queue_for(order.base), expires=_lifetime_s(order))


def _lifetime_s(order: GenerationRequest) -> int:
    return max(int(order.deadline - time.time()), 1)


@contextmanager
def _no_worker_without_broker(request: str) -> Iterator[None]:
    try:
        yield
    except (OperationalError, redis.exceptions.RedisError) as error:
        log.error("generation not sent", generation=request, error=repr(error))
        raise NoWorker from error


def _queue_for(base: str) -> str:
    return base_queue(base) if is_held(base) else LOAD_QUEUE


def is_held(base: str) -> bool:
    """Whether a live worker holds the base."""
    return bool(client().zcount(holders_key(base), time.time() - ALIVE_WITHIN_S, "+inf"))


def withdraw(request: str, *, attempt: int) -> bool:
    """Claims the attempt for the store, so that no worker begins it any more; False when one of them has it already."""
    try:
        return bool(client().set(claim_key(request, attempt), CLAIMED_BY_STORE, nx=True, ex=CLAIM_KEPT_S))
    except redis.exceptions.RedisError:  # without Valkey no worker can claim it either
        return True


def try_again(request: str, *, attempt: int) -> bool:
    """Whether an answer is still to be expected after `attempt` failed: this call, or one beside it, sent the next attempt.

    Only a request of which nothing was said yet, and that nobody stopped, is tried again, and only MAX_ATTEMPTS times.
    """
    row = Request.objects.filter(public_id=request, state=Request.State.ADMITTED)
    if row.filter(attempt__gt=attempt).exists():
        return True
    if has_text(request) or client().get(lease_key(request)) == CANCELLED:
        return False
    order: Any = client().get(order_key(request))
    if order and row.filter(attempt=attempt, attempt__lt=MAX_ATTEMPTS).update(attempt=F("attempt") + 1):
        withdraw(request, attempt=attempt)  # a late delivery of it does nothing
        log.warning("generation tried again", generation=request, attempt=attempt + 1)
        with suppress(NoWorker):  # then whoever reads the answer sends it again
            send(GenerationRequest.from_json(json.loads(order) | {"attempt": attempt + 1}))
        return True
    return row.filter(attempt__gt=attempt).exists()


def has_text(request: str) -> bool:
    """Whether any of the answer has been said."""
    entries: Any = client().xrange(stream_key(request))
    return any(json.loads(fields["event"])["type"] == "delta" for _, fields in entries)
