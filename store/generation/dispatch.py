"""Sends a request to the workers: to the queue of its base where one holds it, else to whoever can load the base."""

from __future__ import annotations

import json
import time
from typing import Any

import structlog
from django.db.models import F

from inference.protocol import (
    ALIVE_WITHIN_S,
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
from store.generation.models import Request
from store.valkey import client

MAX_ATTEMPTS = 2
CLAIMED_BY_STORE = "store"
CLAIM_KEPT_S = 3600


def order_key(request: str) -> str:
    """String: the request as it was sent, for a further attempt; expires with its deadline."""
    return f"requests:{request}:order"


def send(order: GenerationRequest) -> None:
    """Makes the attempt known to the workers. Called on commit."""
    valkey = client()
    lifetime_s = max(int(order.deadline - time.time()), 1)
    valkey.set(order_key(order.id), json.dumps(order.to_json()), ex=lifetime_s)
    valkey.set(lease_key(order.id), "reading", ex=LEASE_S, nx=True)  # never over a cancellation
    app.send_task(GENERATE, args=[order.to_json()], queue=_queue_for(order.base), expires=lifetime_s)


def _queue_for(base: str) -> str:
    held = client().zcount(holders_key(base), time.time() - ALIVE_WITHIN_S, "+inf")
    return base_queue(base) if held else LOAD_QUEUE


def try_again(request: str, *, attempt: int) -> bool:
    """Whether an answer is still to be expected after `attempt` failed: this call, or one beside it, sent the next attempt.

    Only a request of which nothing was said yet is tried again, and only MAX_ATTEMPTS times.
    """
    if has_text(request):
        return False
    order = client().get(order_key(request))
    row = Request.objects.filter(public_id=request, state=Request.State.ADMITTED)
    if order and row.filter(attempt=attempt, attempt__lt=MAX_ATTEMPTS).update(attempt=F("attempt") + 1):
        message = json.loads(str(order)) | {"attempt": attempt + 1}
        client().set(claim_key(request, attempt), CLAIMED_BY_STORE, nx=True, ex=CLAIM_KEPT_S)  # a late delivery of it does nothing
        structlog.get_logger(__name__).warning("generation tried again", generation=request, attempt=attempt + 1)
        send(GenerationRequest.from_json(message))
        return True
    return row.filter(attempt__gt=attempt).exists()


def has_text(request: str) -> bool:
    """Whether any of the answer has been said."""
    entries: Any = client().xrange(stream_key(request))
    return any(json.loads(fields["event"])["type"] == "delta" for _, fields in entries)
