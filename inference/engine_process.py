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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import redis
import redis.exceptions
import structlog

from inference.artifacts import ArtifactStore
from inference.delivery import append, connect, ended, failed, is_late
from inference.job_process import die_with, take_standard_output
from inference.logs import configure
from inference.protocol import (
    ALIVE_WITHIN_S,
    CANCELLED,
    HEARTBEAT_EVERY_S,
    PRECISION_TTL_S,
    FailureCode,
    Finished,
    FinishReason,
    GenerationRequest,
    Message,
    engine_key,
    holders_key,
    lease_key,
    precision_key,
)
from inference.sampling_params import SamplingParams

if TYPE_CHECKING:
    from inference.prompts import Encoder, Prompt
    from inference.renderer import Renderer

log = structlog.get_logger(__name__)

UNFIT_STATUS = 4
VALKEY_RETRY_S = 0.2
WARM_UP_WITHIN_S = 60.0
LOOK_AFTER_S = 0.1  # for leases and deadlines of requests that are prepared, while there is nothing else to do
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
    """A request that is prepared, or that the engine holds."""

    request: GenerationRequest
    prepared: bool = False
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
    """Feeds an engine with what the parent sends, once it is prepared, and the streams with what the engine makes."""

    def __init__(
        self,
        engine: Any,
        order: Order,
        *,
        orders: queue.Queue[dict[str, Any]],
        output: Output,
        valkey: redis.Redis,
        encoders: tuple[Encoder, Encoder],
    ) -> None:
        """`encoders`: one that gives a request little time, and one that gives it all there is."""
        from inference.preparation import Preparation

        quick, patient = encoders
        self._preparation = Preparation(engine.prepare, self._hand_on, quick=quick, patient=patient)
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
        self._stats = self._figures()  # replaced whole, so that the heartbeat's thread may read it

    def run(self) -> None:
        """Never returns: the process ends with its input."""
        threading.Thread(target=self._keep_beating, name="heartbeat", daemon=True).start()
        while True:
            self.turn()

    def turn(self) -> None:
        """Takes new orders, advances every running request by one step, writes what is new."""
        self._take_orders()
        self._expire()
        # While Valkey is away nobody can read: no further step, so that nothing is generated unseen.
        if not self._outbox and self._engine.has_work:
            self._step()
        self._write()
        self._turned_at = time.monotonic()
        self._stats = self._figures()

    def _figures(self) -> dict[str, Any]:
        """The engine's, in which those that are prepared wait too."""
        stats, preparing = self._engine.stats(), len(self._preparation)
        return {**stats, "waiting": stats["waiting"] + preparing, "preparing": preparing}

    def _step(self) -> None:
        for request, event in self._engine.step():
            self._post(request, event.to_json())

    def _take_orders(self) -> None:
        """Empties the queue; with nothing to do, waits for an order until the next heartbeat is due."""
        idle = not (self._engine.has_work or self._outbox)
        wait_s = max(0.0, self._beat_at + HEARTBEAT_EVERY_S - time.monotonic()) if idle else 0.0
        wait_s = min(wait_s, LOOK_AFTER_S) if self._running else wait_s
        try:
            self._obey(self._orders.get(timeout=wait_s) if wait_s else self._orders.get_nowait())
            while True:
                self._obey(self._orders.get_nowait())
        except queue.Empty:
            return

    def _obey(self, order: Mapping[str, Any]) -> None:
        match order["do"]:
            case "submit":
                self._prepare(GenerationRequest.from_json(order["request"]))
            case "begin":
                self._begin(order["request"], order["made"])
            case "cancel":
                self._cancel(order["request"])

    def _prepare(self, request: GenerationRequest) -> None:
        """Has its prompt made beside the steps."""
        if request.id in self._running:  # the store took this engine for dead, and an earlier attempt for lost
            self._cancel(request.id)
            self._step()  # its last event is still that attempt's
        self._running[request.id] = Running(request)
        with self._refusing(request):
            self._preparation.take(request)

    def _hand_on(self, request: GenerationRequest, made: Prompt | Exception) -> None:
        """From the threads that prepare: among the orders, which wakes the loop."""
        self._orders.put({"do": "begin", "request": request, "made": made})

    def _begin(self, request: GenerationRequest, made: Prompt | Exception) -> None:
        running = self._running.get(request.id)
        if running is None or running.request is not request:
            return  # it ended meanwhile
        running.prepared = True
        with self._refusing(request):
            if isinstance(made, Exception):
                raise made
            self._engine.submit(request, prompt=made, adapter_folder=self._adapter_source(request))

    def _cancel(self, request_id: str, reason: FinishReason = FinishReason.CANCELLED) -> None:
        running = self._running.get(request_id)
        if running is None:
            return
        if running.prepared:
            self._engine.cancel(request_id, reason)
            return
        self._preparation.drop(running.request)
        self._post(request_id, ended(running.request, reason).to_json())

    def _expire(self) -> None:
        """Ends those whose time is over before they are prepared; the engine ends its own."""
        now = time.time()
        for running in [running for running in self._running.values() if not running.prepared and running.request.deadline < now]:
            self._cancel(running.request.id, FinishReason.DEADLINE)

    @contextmanager
    def _refusing(self, request: GenerationRequest) -> Iterator[None]:
        """A wrong request fails alone, however wrong it is."""
        from inference.prompts import RequestRefused

        try:
            yield
        except RequestRefused as error:
            self._refuse(failed(request, error.code, str(error), detail=error.detail))
        except Exception as error:
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
            self._output.say("beat", **self._figures())
        leased = [running.request.id for running in self._running.values() if running.request.leased]
        if self._outbox or leased:
            try:
                self._exchange(leased)
            except redis.exceptions.RedisError as error:
                log.warning("Valkey is away", engine=self._order.engine, error=repr(error))
                time.sleep(VALKEY_RETRY_S)
                return
        self._output.say_room(bool(self._engine.has_room) and self._preparation.has_room)

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
                self._cancel(request)

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


def load(order: Order, output: Output, encoder: Renderer) -> Any:
    """The engine, or the end of the process with the reason said."""
    encoder.start()  # it loads beside the model
    try:
        engine = (engine_beside_server if "url" in order.options else own_engine)(order, encoder)
        warm_up(engine, order.base)
        return engine
    except Exception as error:
        log.exception("base not loaded", engine=order.engine, base=order.base)
        output.say("unfit", message=f"{type(error).__name__}: {error}")
        sys.stderr.flush()
        os._exit(UNFIT_STATUS)


def own_engine(order: Order, encoder: Encoder) -> Any:
    import torch

    from inference.engine import EngineCore
    from inference.engine_options import EngineOptions
    from inference.grammar import GrammarRefused

    device = order.options.get("device", "cpu")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    engine = EngineCore.load(Path(order.folder), EngineOptions(**order.options | {"device": device}), encoder=encoder)
    try:
        engine.prepare_grammars()
    except GrammarRefused as error:
        log.warning("answers cannot follow grammars", base=order.base, reason=str(error))
    return engine


def engine_beside_server(order: Order, encoder: Encoder) -> Any:
    from inference.vllm_engine import VllmEngine, VllmOptions

    return VllmEngine.load(Path(order.folder), VllmOptions(**order.options), encoder=encoder)


def warm_up(engine: Any, base: str) -> None:
    """One token, so that what is imported and compiled at first use is not waited for by the first person who asks."""
    from inference.prompts import Prompt, RequestRefused

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
        prompt = engine.prepare(request)
    except RequestRefused as error:
        log.warning("warmed up without a conversation", base=base, reason=str(error))
        prompt = Prompt([0])
    engine.submit(request, prompt=prompt)
    while engine.has_work:
        engine.step()


def main() -> None:
    from inference.preparation import QUICK_S
    from inference.renderer import Renderer

    output = Output(take_standard_output())
    order = Order.from_json(json.loads(sys.stdin.readline()))
    die_with(order.parent)
    configure()
    orders = read_orders(sys.stdin)
    began_at = time.monotonic()
    quick = Renderer(Path(order.folder), within_s=QUICK_S)
    patient = Renderer(Path(order.folder))  # whose process begins with the first request that needs it
    engine = load(order, output, quick)
    gc.collect()
    gc.freeze()  # the model's objects live as long as the process: the collector need not visit them between steps
    output.say("ready", load_s=round(time.monotonic() - began_at, 2))
    loop = EngineLoop(engine, order, orders=orders, output=output, valkey=connect(order.redis), encoders=(quick, patient))
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
