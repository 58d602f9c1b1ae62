"""The process one engine lives in: `python -m inference.engine_process`, started and watched by `inference.engines`.

Wire form, one JSON object per line. In: first an `Order`, then {"do": "submit", "request"} and {"do": "cancel", "request"}.
Out: {"type": "ready" | "unfit" | "beat" | "room" | "finished", …}. Text never passes through the parent: after every step
one pipelined write appends the new events of all requests to their Valkey streams and reads the leases of those still
running. A thread of its own renews the engine's heartbeat once a second, so that a long step on a busy machine is not taken
for death. The end of the input ends the process.
"""

from __future__ import annotations

import gc
import json
import os
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import redis
import redis.exceptions
import structlog

from inference.artifacts import ArtifactStore
from inference.delivery import append, connect, failed, is_late
from inference.job_process import die_with, take_standard_output
from inference.logs import configure
from inference.protocol import (
    ALIVE_WITHIN_S,
    CANCELLED,
    HEARTBEAT_EVERY_S,
    PRECISION_TTL_S,
    FailureCode,
    Finished,
    GenerationRequest,
    Message,
    engine_key,
    holders_key,
    lease_key,
    precision_key,
)
from inference.sampling_params import SamplingParams

if TYPE_CHECKING:
    from inference.prompts import Render

log = structlog.get_logger(__name__)

UNFIT_STATUS = 4
VALKEY_RETRY_S = 0.2
WARM_UP_WITHIN_S = 60.0
HUNG_AFTER_S = 60.0  # a loop that has not come round for so long has no heartbeat any more, and is killed


@dataclass(frozen=True)
class Order(Message):
    """What the parent asks of the process: hold one base."""

    engine: str  # name of the engine, unique to this process
    base: str  # digest
    worker: str
    folder: str  # of the materialised base
    redis: str  # URL
    artifacts: str  # URL, for adapters
    cache: str  # folder in which artifacts are put
    parent: int  # process id
    options: dict[str, Any]  # of EngineOptions, or of VllmOptions where they name a server


@dataclass
class Running:
    """A request the engine holds."""

    request: GenerationRequest
    entries: int = 0  # appended to its stream, or waiting to be


@dataclass(frozen=True)
class Entry:
    """An event waiting to be appended."""

    request: str
    attempt: int
    number: int
    event: dict[str, Any]


@dataclass
class Output:
    """The line-wise way to the parent; used by the engine's thread only."""

    stream: TextIO
    room: bool = field(default=True)

    def say(self, type_: str, **facts: Any) -> None:
        self.stream.write(json.dumps({"type": type_, **facts}) + "\n")
        self.stream.flush()

    def say_room(self, room: bool) -> None:
        if room != self.room:
            self.room = room
            self.say("room", room=room)


class EngineLoop:
    """Feeds an engine with what the parent sends, and the streams with what the engine makes."""

    def __init__(self, engine: Any, order: Order, *, orders: queue.Queue[dict[str, Any]], output: Output, valkey: redis.Redis) -> None:
        self._engine = engine
        self._order = order
        self._orders = orders
        self._output = output
        self._valkey = valkey
        self._artifacts = ArtifactStore(order.artifacts)
        self._running: dict[str, Running] = {}
        self._outbox: deque[Entry] = deque()
        self._beat_at = 0.0
        self._turned_at = time.monotonic()
        self._stats: dict[str, Any] = engine.stats()  # replaced whole, so that the heartbeat's thread may read it

    def run(self) -> None:
        """Never returns: the process ends with its input."""
        threading.Thread(target=self._keep_beating, name="heartbeat", daemon=True).start()
        while True:
            self.turn()

    def turn(self) -> None:
        """Takes new orders, advances every running request by one step, writes what is new."""
        self._take_orders()
        # While Valkey is away nobody can read: no further step, so that nothing is generated unseen.
        if not self._outbox and self._engine.has_work:
            self._step()
        self._write()
        self._turned_at = time.monotonic()
        self._stats = self._engine.stats()

    def _step(self) -> None:
        for request, event in self._engine.step():
            self._post(request, event.to_json())

    def _take_orders(self) -> None:
        """Empties the queue; with nothing to do, waits for an order until the next heartbeat is due."""
        idle = not (self._engine.has_work or self._outbox)
        wait_s = max(0.0, self._beat_at + HEARTBEAT_EVERY_S - time.monotonic()) if idle else 0.0
        try:
            self._obey(self._orders.get(timeout=wait_s) if wait_s else self._orders.get_nowait())
            while True:
                self._obey(self._orders.get_nowait())
        except queue.Empty:
            return

    def _obey(self, order: Mapping[str, Any]) -> None:
        match order["do"]:
            case "submit":
                self._submit(order)
            case "cancel":
                self._engine.cancel(order["request"])

    def _submit(self, order: Mapping[str, Any]) -> None:
        from inference.prompts import RequestRefused

        request = GenerationRequest.from_json(order["request"])
        if request.id in self._running:  # the store took this engine for dead, and an earlier attempt for lost
            self._engine.cancel(request.id)
            self._step()  # its last event is still that attempt's
        self._running[request.id] = Running(request)
        try:
            self._engine.submit(request, adapter_folder=self._adapter_source(request))
        except RequestRefused as error:
            self._refuse(failed(request, error.code, str(error), detail=error.detail))
        except Exception as error:  # a wrong request fails alone, however wrong it is
            log.exception("request not accepted", generation=request.id, request_id=request.trace)
            self._refuse(failed(request, FailureCode.INTERNAL, f"{type(error).__name__}: {error}"))

    def _adapter_source(self, request: GenerationRequest) -> Callable[[], Path] | None:
        """What fetches the request's adapter from the artifact store; the engine calls it beside its steps."""
        if request.adapter is None:
            return None
        return partial(self._artifacts.materialise, request.adapter, Path(self._order.cache))

    def _refuse(self, event: Finished) -> None:
        log.info("request refused", generation=event.request, failure=str(event.failure), message=event.message)
        self._post(event.request, event.to_json())

    def _post(self, request: str, event: dict[str, Any]) -> None:
        running = self._running[request]
        running.entries += 1
        self._outbox.append(Entry(request, running.request.attempt, running.entries, event))
        if event["type"] == "finished":
            del self._running[request]

    def _write(self) -> None:
        """The one round trip of a step. What could not be written stays in the outbox for the next turn."""
        if time.monotonic() - self._beat_at >= HEARTBEAT_EVERY_S:
            self._beat_at = time.monotonic()
            self._output.say("beat", **self._engine.stats())
        leased = [running.request.id for running in self._running.values() if running.request.leased]
        if self._outbox or leased:
            try:
                self._exchange(leased)
            except redis.exceptions.RedisError as error:
                log.warning("Valkey is away", engine=self._order.engine, error=repr(error))
                time.sleep(VALKEY_RETRY_S)
                return
        self._output.say_room(bool(self._engine.has_room))

    def _exchange(self, leased: list[str]) -> None:
        entries = list(self._outbox)
        pipeline = self._valkey.pipeline(transaction=False)
        for entry in entries:
            append(pipeline, entry.request, attempt=entry.attempt, number=entry.number, event=entry.event)
        if leased:
            pipeline.mget([lease_key(request) for request in leased])
        replies = pipeline.execute(raise_on_error=False)
        for reply in replies:
            if isinstance(reply, Exception) and not is_late(reply):
                raise reply
        self._outbox.clear()
        for entry in entries:
            if entry.event["type"] == "finished":
                self._output.say("finished", event=entry.event)
        if leased:
            self._obey_leases(leased, replies[-1])

    def _obey_leases(self, requests: list[str], leases: list[str | None]) -> None:
        for request, lease in zip(requests, leases, strict=True):
            if lease is None or lease == CANCELLED:
                self._engine.cancel(request)

    # ------------------------------------------------------------ heartbeat, in its own thread

    def _keep_beating(self) -> None:
        while True:
            if time.monotonic() - self._turned_at < HUNG_AFTER_S:
                try:
                    self._beat()
                except redis.exceptions.RedisError as error:
                    log.warning("heartbeat not written", engine=self._order.engine, error=repr(error))
            time.sleep(HEARTBEAT_EVERY_S)

    def _beat(self) -> None:
        stats = {**self._stats, "base": self._order.base, "worker": self._order.worker}
        holders = holders_key(self._order.base)
        pipeline = self._valkey.pipeline(transaction=False)
        pipeline.set(engine_key(self._order.engine), json.dumps(stats), ex=int(ALIVE_WITHIN_S))
        pipeline.zadd(holders, {self._order.worker: time.time()})
        pipeline.expire(holders, int(ALIVE_WITHIN_S) * 2)
        precision = precision_key(self._order.base)
        pipeline.zadd(precision, {stats["dtype"]: time.time()})
        pipeline.expire(precision, PRECISION_TTL_S)
        pipeline.execute()


def read_orders(orders: TextIO) -> queue.Queue[dict[str, Any]]:
    """A queue filled by a thread of its own, which ends the process when the input ends."""
    found: queue.Queue[dict[str, Any]] = queue.Queue()

    def read() -> None:
        for line in orders:
            found.put(json.loads(line))
        os._exit(0)

    threading.Thread(target=read, name="orders", daemon=True).start()
    return found


def load(order: Order, output: Output) -> Any:
    """The engine, or the end of the process with the reason said."""
    from inference.renderer import Renderer

    renderer = Renderer(Path(order.folder))
    renderer.start()  # it loads beside the model
    try:
        engine = (engine_beside_server if "url" in order.options else own_engine)(order, renderer.render)
        warm_up(engine, order.base)
        return engine
    except Exception as error:
        log.exception("base not loaded", engine=order.engine, base=order.base)
        output.say("unfit", message=f"{type(error).__name__}: {error}")
        sys.stderr.flush()
        os._exit(UNFIT_STATUS)


def own_engine(order: Order, render: Render) -> Any:
    import torch

    from inference.engine import EngineCore
    from inference.engine_options import EngineOptions
    from inference.grammar import GrammarRefused

    device = order.options.get("device", "cpu")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    engine = EngineCore.load(Path(order.folder), EngineOptions(**order.options | {"device": device}), render=render)
    try:
        engine.prepare_grammars()
    except GrammarRefused as error:
        log.warning("answers cannot follow grammars", base=order.base, reason=str(error))
    return engine


def engine_beside_server(order: Order, render: Render) -> Any:
    from inference.vllm_engine import VllmEngine, VllmOptions

    return VllmEngine.load(Path(order.folder), VllmOptions(**order.options), render=render)


def warm_up(engine: Any, base: str) -> None:
    """One token, so that what is imported and compiled at first use is not waited for by the first person who asks."""
    from inference.prompts import RequestRefused

    request = GenerationRequest(
        id="warm-up",
        base=base,
        version="",
        tenant="",
        messages=[{"role": "user", "content": "Hello"}],
        sampling=SamplingParams(max_tokens=1).to_json(),
        deadline=time.time() + WARM_UP_WITHIN_S,
    )
    try:
        engine.submit(request)
    except RequestRefused as error:
        log.warning("engine not warmed up", base=base, reason=str(error))
    while engine.has_work:
        engine.step()


def main() -> None:
    output = Output(take_standard_output())
    order = Order.from_json(json.loads(sys.stdin.readline()))
    die_with(order.parent)
    configure()
    orders = read_orders(sys.stdin)
    began_at = time.monotonic()
    engine = load(order, output)
    gc.collect()
    gc.freeze()  # the model's objects live as long as the process: the collector need not visit them between steps
    output.say("ready", load_s=round(time.monotonic() - began_at, 2))
    loop = EngineLoop(engine, order, orders=orders, output=output, valkey=connect(order.redis))
    try:
        loop.run()
    except BaseException:
        log.exception("engine ended", engine=order.engine)
        sys.stderr.flush()
        os._exit(1)  # the thread that reads the input would hold a normal exit


if __name__ == "__main__":
    # Run as a script this module would exist twice; its dataclasses must be those that others import.
    from inference.engine_process import main as serve

    serve()
