"""The places in flight: how many requests of one base may be under way at once, whoever asks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import redis.exceptions
import structlog
from django.conf import settings

from inference.protocol import GenerationRequest, inflight_key
from store.generation.errors import Overloaded
from store.valkey import client

RETRY_AFTER_S = 2.0
COMMITTED_WITHIN_S = 30.0  # a place whose request is not in the database by then is free again

_TAKE = """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[1])
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[5]) then return 0 end
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[4])
redis.call('EXPIREAT', KEYS[1], math.ceil(tonumber(ARGV[3])))
return 1
"""


@contextmanager
def taken_for(order: GenerationRequest) -> Iterator[None]:
    """Takes one of the base's places, and gives it back when what follows fails. Raises Overloaded.

    The caller's own transaction may still be rolled back after that, or its process killed: until `keep` the place is
    held for COMMITTED_WITHIN_S only.
    """
    now, limit = time.time(), settings.MAX_INFLIGHT_PER_BASE
    until = min(now + COMMITTED_WITHIN_S, order.deadline)
    if not client().eval(_TAKE, 1, inflight_key(order.base), now, until, order.deadline, order.id, limit):
        raise Overloaded(retry_after_s=RETRY_AFTER_S)
    try:
        yield
    except BaseException:
        give_back(order.base, order.id)
        raise


def keep(order: GenerationRequest) -> None:
    """Holds the place for as long as the request may run. Called once it is committed."""
    key = inflight_key(order.base)
    with client().pipeline() as pipeline:
        pipeline.zadd(key, {order.id: order.deadline})
        pipeline.expireat(key, int(order.deadline) + 1)
        pipeline.execute()


def give_back(base: str, request: str) -> None:
    try:
        client().zrem(inflight_key(base), request)
    except redis.exceptions.RedisError as error:
        structlog.get_logger(__name__).warning("place left to lapse", generation=request, error=repr(error))
