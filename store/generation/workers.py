"""Who is there to generate, as the workers themselves say once a second."""

from __future__ import annotations

import json
import time
from typing import Any

import redis.exceptions
import structlog

from inference.protocol import ALIVE_WITHIN_S, GENERATION_WORKERS, JOB_WORKERS, engine_key, precision_key
from store.valkey import client

log = structlog.get_logger(__name__)


def alive() -> dict[str, Any]:
    """{"generation": [worker names], "jobs": [worker names], "engines": {engine name: its stats()}}."""
    valkey: Any = client()
    since = time.time() - ALIVE_WITHIN_S
    keys = sorted(valkey.scan_iter(engine_key("*"), count=500))
    stats = valkey.mget(keys) if keys else []
    return {
        "generation": valkey.zrangebyscore(GENERATION_WORKERS, since, "+inf"),
        "jobs": valkey.zrangebyscore(JOB_WORKERS, since, "+inf"),
        "engines": {key.partition(":")[2]: json.loads(raw) for key, raw in zip(keys, stats, strict=True) if raw},
    }


def precisions(base: str) -> list[str]:
    """The dtypes in which a base is served now, by its digest; while no engine holds it, the last one. Empty when none is known."""
    valkey: Any = client()
    try:
        known = valkey.zrevrange(precision_key(base), 0, -1, withscores=True)
    except redis.exceptions.RedisError as error:
        log.warning("precision not read", base=base, error=repr(error))
        return []
    since = time.time() - ALIVE_WITHIN_S
    return [dtype for dtype, beat_at in known if beat_at >= since] or [dtype for dtype, _ in known[:1]]
