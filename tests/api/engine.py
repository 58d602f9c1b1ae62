"""An engine that answers by a script: takes orders from the workers' queue and writes the events of the protocol, without a model."""

from __future__ import annotations

import base64
import json
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from inference import protocol
from store.valkey import client

Script = Callable[[protocol.GenerationRequest], Iterator[protocol.Message]]
NAME = "scripted"


def says(*pieces: str, reason: str = protocol.FinishReason.STOP) -> Script:
    """Answers with these pieces; 7 prompt tokens of which 2 were cached, a completion token for each piece."""

    def script(order: protocol.GenerationRequest) -> Iterator[protocol.Message]:
        if order.embedding is not None:
            yield from embeds(0.6, 0.8)(order)
            return
        yield protocol.Started(engine=NAME, attempt=order.attempt, prompt_tokens=7)
        for number, piece in enumerate(pieces, start=1):
            yield protocol.Delta(text=piece, tokens=number)
        usage = protocol.Usage(prompt_tokens=7, completion_tokens=len(pieces), cached_tokens=2).to_json()
        yield protocol.Finished(request=order.id, reason=reason, usage=usage, attempt=order.attempt)

    return script


def embeds(*numbers: float) -> Script:
    """Tells this vector, of a text of as many tokens as it has letters."""

    def script(order: protocol.GenerationRequest) -> Iterator[protocol.Message]:
        assert order.embedding is not None
        yield protocol.Started(engine=NAME, attempt=order.attempt, prompt_tokens=len(order.messages[0]["content"]))
        kept = numbers[: order.embedding["dimensions"]]
        yield protocol.Embedded(vector=base64.b64encode(struct.pack(f"<{len(kept)}f", *kept)).decode())
        usage = protocol.Usage(prompt_tokens=len(order.messages[0]["content"])).to_json()
        yield protocol.Finished(request=order.id, reason=protocol.FinishReason.STOP, usage=usage, attempt=order.attempt)

    return script


def says_choices(*events: protocol.Delta) -> Script:
    """Says these pieces of several choices; each one's tokens are what its last piece counts."""

    def script(order: protocol.GenerationRequest) -> Iterator[protocol.Message]:
        yield protocol.Started(engine=NAME, attempt=order.attempt, prompt_tokens=7)
        yield from events
        tokens = {event.choice: event.tokens for event in events}
        reason = next(event.reason for event in events if event.choice == 0 and event.reason)
        usage = protocol.Usage(prompt_tokens=7, completion_tokens=sum(tokens.values())).to_json()
        yield protocol.Finished(request=order.id, reason=reason, usage=usage, attempt=order.attempt)

    return script


def fails(code: protocol.FailureCode, *pieces: str, detail: dict[str, Any] | None = None) -> Script:
    """Fails with `code`, after having said the pieces."""

    def script(order: protocol.GenerationRequest) -> Iterator[protocol.Message]:
        if pieces:
            yield protocol.Started(engine=NAME, attempt=order.attempt, prompt_tokens=7)
        for number, piece in enumerate(pieces, start=1):
            yield protocol.Delta(text=piece, tokens=number)
        reason, usage = protocol.FinishReason.ERROR, protocol.Usage().to_json()
        yield protocol.Finished(request=order.id, reason=reason, usage=usage, attempt=order.attempt, failure=code, detail=detail or {})

    return script


def waits_to_be_cancelled(order: protocol.GenerationRequest) -> Iterator[protocol.Message]:
    """Says something, then nothing until it is asked to stop."""
    yield protocol.Started(engine=NAME, attempt=order.attempt, prompt_tokens=7)
    yield protocol.Delta(text="Once", tokens=1)
    deadline = time.monotonic() + 20
    while client().get(protocol.lease_key(order.id)) != protocol.CANCELLED and time.monotonic() < deadline:
        time.sleep(0.01)
    cancelled = client().get(protocol.lease_key(order.id)) == protocol.CANCELLED
    reason = protocol.FinishReason.CANCELLED if cancelled else protocol.FinishReason.DEADLINE
    usage = protocol.Usage(prompt_tokens=7, completion_tokens=1).to_json()
    yield protocol.Finished(request=order.id, reason=reason, usage=usage, attempt=order.attempt)


class ScriptedEngine(threading.Thread):
    """Beats like a worker and answers every order by `script`. `orders` and `finished` are what it was asked and how each ended."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.script: Script = says("Hello", " there")
        self.orders: list[protocol.GenerationRequest] = []
        self.finished: list[protocol.Finished] = []
        self._over = threading.Event()
        self.beat()

    def beat(self) -> None:
        client().zadd(protocol.GENERATION_WORKERS, {"worker-1": time.time()})
        client().set(protocol.engine_key(NAME), "{}", ex=int(protocol.ALIVE_WITHIN_S))

    def run(self) -> None:
        while not self._over.is_set():
            self.beat()
            taken: Any = client().brpop([protocol.LOAD_QUEUE], timeout=0.2)
            if taken and json.loads(taken[1])["headers"]["task"] == protocol.GENERATE:  # shards of batches are for others
                order = protocol.GenerationRequest.from_json(_first_argument(taken[1]))
                if client().set(protocol.claim_key(order.id, order.attempt), "worker-1", nx=True):
                    self.orders.append(order)
                    self._answer(order)

    def _answer(self, order: protocol.GenerationRequest) -> None:
        for number, event in enumerate(self.script(order), start=1):
            entry = f"{order.attempt}-{number}"
            client().xadd(protocol.stream_key(order.id), {"event": json.dumps(event.to_json())}, id=entry)
            if isinstance(event, protocol.Finished):
                self.finished.append(event)

    def stop(self) -> None:
        self._over.set()
        self.join(timeout=25)


def _first_argument(raw: str) -> dict[str, Any]:
    """The first positional argument of the Celery task in a message as kombu keeps it in Valkey."""
    (order, *_rest), _keywords, _embedded = json.loads(base64.b64decode(json.loads(raw)["body"]))
    return dict(order)
