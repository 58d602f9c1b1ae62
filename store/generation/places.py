"""The places in flight: how many requests of one base may be under way at once, of all who ask and of one of them."""

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
TIMES_FREE = 3  # a tenant has at most three times as many as stay free, so alone it gets three of four
COMMITTED_WITHIN_S = 30.0  # a place whose request is not in the database by then is free again

_TAKE = """
for _, key in ipairs(KEYS) do redis.call('ZREMRANGEBYSCORE', key, '-inf', ARGV[1]) end
local free = tonumber(ARGV[5]) - redis.call('ZCARD', KEYS[1])
if redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[6]) * free then return 0 end
for _, key in ipairs(KEYS) do
  redis.call('ZADD', key, ARGV[2], ARGV[4])
  redis.call('EXPIREAT', key, math.ceil(tonumber(ARGV[3])))
end
return 1
"""


@contextmanager
def taken_for(order: GenerationRequest) -> Iterator[None]:
    """Takes one of the base's places, and gives it back when what follows fails. Raises Overloaded.

    However much one tenant asks, there stay places for others, whom the engine then serves in turn.
    The caller's own transaction may still be rolled back after that, or its process killed: until `keep` the place is
    held for COMMITTED_WITHIN_S only.
    """
    now, limit = time.time(), settings.MAX_INFLIGHT_PER_BASE
    until = min(now + COMMITTED_WITHIN_S, order.deadline)
    keys = _keys(order.base, order.tenant)
    if not client().eval(_TAKE, len(keys), *keys, now, until, order.deadline, order.id, limit, TIMES_FREE):
        raise Overloaded(retry_after_s=RETRY_AFTER_S)
    try:
        yield
    except BaseException:
        give_back(order.base, order.tenant, order.id)
        raise


def keep(order: GenerationRequest) -> None:
    """Holds the place for as long as the request may run. Called once it is committed."""
    with client().pipeline() as pipeline:
        for key in _keys(order.base, order.tenant):
            pipeline.zadd(key, {order.id: order.deadline})
            pipeline.expireat(key, int(order.deadline) + 1)
        pipeline.execute()


def give_back(base: str, tenant: str, request: str) -> None:
    try:
        with client().pipeline() as pipeline:
            for key in _keys(base, tenant):
                pipeline.zrem(key, request)
            pipeline.execute()
    except redis.exceptions.RedisError as error:
        structlog.get_logger(__name__).warning("place left to lapse", generation=request, error=repr(error))


def _keys(base: str, tenant: str) -> tuple[str, str]:
    return inflight_key(base), inflight_key(base, tenant)
