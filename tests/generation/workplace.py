"""Stands for the workers, which are other processes: takes orders from their queues and writes the events of the protocol."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

from celery import Celery

from inference import protocol
from store.generation import dispatch
from store.valkey import client

WORKER = "worker-1"
BROKER_THAT_IS_AWAY = Celery("away", broker="redis://127.0.0.1:1/0", set_as_current=False, fixups=[])
ENGINE = "engine-1"


def worker_beats(name: str = WORKER) -> None:
    client().zadd(protocol.GENERATION_WORKERS, {name: time.time()})


def engine_beats(name: str = ENGINE) -> None:
    client().set(protocol.engine_key(name), "{}", ex=int(protocol.ALIVE_WITHIN_S))


def waiting(queue: str = protocol.LOAD_QUEUE) -> list[protocol.GenerationRequest]:
    """The orders in a queue, oldest first, without taking them."""
    raws: Any = client().lrange(queue, 0, -1)
    bodies = [json.loads(base64.b64decode(json.loads(raw)["body"])) for raw in reversed(raws)]
    return [protocol.GenerationRequest.from_json(arguments[0]) for arguments, _keywords, _embedded in bodies]


def take(*, attempt: int = 1, within_s: float = 10.0) -> protocol.GenerationRequest:
    """The order of this attempt, claimed as a worker claims it."""
    deadline = time.monotonic() + within_s
    while not (found := [order for order in waiting() if order.attempt == attempt]):
        assert time.monotonic() < deadline, f"no order of attempt {attempt}"
        time.sleep(0.01)
    assert claim(found[0])
    return found[0]


def claim(order: protocol.GenerationRequest) -> bool:
    return bool(client().set(protocol.claim_key(order.id, order.attempt), WORKER, nx=True))


def time_passes(request: str) -> None:
    """So much that what was sent would have been taken by now."""
    assert client().delete(dispatch.sent_key(request)) == 1


def started(order: protocol.GenerationRequest) -> protocol.Started:
    return protocol.Started(engine=ENGINE, attempt=order.attempt, prompt_tokens=20)


def finished(
    order: protocol.GenerationRequest, *, tokens: int = 0, reason: str = "stop", failure: protocol.FailureCode | None = None
) -> protocol.Finished:
    usage = protocol.Usage(prompt_tokens=20, completion_tokens=tokens, cached_tokens=5).to_json()
    return protocol.Finished(order.id, reason, usage, order.attempt, failure, first_token_ms=40.0, duration_ms=140.0)


def write(order: protocol.GenerationRequest, *events: protocol.Message, first: int = 1) -> None:
    for number, event in enumerate(events, start=first):
        value = {"event": json.dumps(event.to_json())}
        client().xadd(protocol.stream_key(order.id), value, id=f"{order.attempt}-{number}")  # type: ignore[arg-type]


def says(order: protocol.GenerationRequest, *pieces: str) -> None:
    """A whole answer of these pieces."""
    deltas = [protocol.Delta(text=piece, tokens=number) for number, piece in enumerate(pieces, start=1)]
    write(order, started(order), *deltas, finished(order, tokens=len(pieces)))
