"""Who is there to generate, as the workers themselves say once a second."""

from __future__ import annotations

import json
import time
from typing import Any

from inference.protocol import ALIVE_WITHIN_S, GENERATION_WORKERS, JOB_WORKERS, engine_key
from store.valkey import client


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
