"""Engines on the test broker, and the store's part of the conversation: leases, streams, what is reported."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from inference.delivery import Delivery, connect
from inference.engines import EngineHouse, Engines
from inference.precision import Precision
from inference.protocol import LEASE_S, GenerationRequest, lease_key, stream_key
from inference.sampling_params import SamplingParams


def wait_until(condition: Callable[[], Any], *, within_s: float = 60.0) -> Any:
    """The first true value of `condition`. Fails when there is none in time."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"nothing within {within_s} s"
        time.sleep(0.01)
    return value


def a_request(base: str, text: str = "Hello", *, max_tokens: int = 8, **fields: Any) -> GenerationRequest:
    sampling = SamplingParams(max_tokens=max_tokens, temperature=0.0).to_json()
    fields = {"deadline": time.time() + 120, "leased": False, "sampling": sampling} | fields
    return GenerationRequest(
        id=f"req_{secrets.token_hex(6)}",
        base=base,
        version="ver_test",
        tenant="tenant",
        messages=[{"role": "user", "content": text}],
        **fields,
    )


class Reader:
    """What the store does with a request: hold its lease, read its stream."""

    def __init__(self, url: str) -> None:
        self.valkey: redis.Redis = connect(url)

    def lease(self, request: GenerationRequest, value: str = "reader", seconds: int = LEASE_S) -> None:
        self.valkey.set(lease_key(request.id), value, ex=seconds)

    def events(self, request: GenerationRequest) -> list[dict[str, Any]]:
        return [json.loads(fields["event"]) for _, fields in self.valkey.xrange(stream_key(request.id))]

    def last(self, request: GenerationRequest, *, within_s: float = 60.0) -> dict[str, Any]:
        """The finished event, once it is there."""
        return wait_until(lambda: next((e for e in self.events(request) if e["type"] == "finished"), None), within_s=within_s)

    def text(self, request: GenerationRequest) -> str:
        return "".join(event["text"] for event in self.events(request) if event["type"] == "delta")

    def begun(self, request: GenerationRequest, *, within_s: float = 60.0) -> None:
        """Waits for the first text."""
        wait_until(lambda: any(event["type"] == "delta" for event in self.events(request)), within_s=within_s)


@contextmanager
def engines_in(
    cache: Path, *, redis_url: str, artifacts: str, on_change: Callable[[str, bool], None] | None = None, **house: Any
) -> Iterator[tuple[Engines, list[dict[str, Any]]]]:
    """Engines with a budget, and the list of what they report to the store."""
    sent: list[dict[str, Any]] = []
    options = {"worker": "worker-test", "memory_bytes": 4 * 2**30, "precision": Precision("float32"), "threads": 1} | house
    valkey = connect(redis_url)
    settings = EngineHouse(redis_url=redis_url, artifacts=artifacts, cache=cache, **options)
    engines = Engines(settings, delivery=Delivery(valkey, sent.append), valkey=valkey, on_change=on_change)
    yield engines, sent
    engines.drain(within_s=0.0)
