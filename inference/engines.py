"""The engines of one generation worker: a process per base, within a memory budget, loaded on demand and watched.

A request is handed over as soon as its engine has room, also while the engine is still loading: its line then waits in the
pipe. Whatever becomes of an engine, each request it was given gets its last event: from the engine itself, or from here
when the engine could not be loaded, died or hung.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import IO, Any

import redis
import redis.exceptions
import structlog

from inference.artifacts import ArtifactError, ArtifactStore, evict
from inference.delivery import Delivery, ended, failed
from inference.engine_process import HUNG_AFTER_S, Order
from inference.footprint import Unfit, fit
from inference.protocol import (
    CANCELLED,
    FailureCode,
    FinishReason,
    GenerationRequest,
    engine_key,
    holders_key,
    lease_key,
)

log = structlog.get_logger(__name__)

WATCH_EVERY_S = 0.5
LEASE_LOOK_EVERY_S = 1.0
ENDS_WITHIN_S = 5.0  # an engine whose input was closed


@dataclass(frozen=True)
class EngineHouse:
    """Where engines run and what they may take."""

    worker: str
    redis_url: str
    artifacts: str  # URL
    cache: Path
    memory_bytes: int  # for all engines together
    options: dict[str, Any] = field(default_factory=dict)  # of EngineOptions, for every engine
    threads: int = 0  # of an engine's computations; 0: torch decides
    held_at_most: int = 32  # requests an engine is given at once
    idle_s: float = 900.0  # an engine without requests for so long is unloaded
    hung_after_s: float = HUNG_AFTER_S  # an engine that has said nothing for so long is killed
    load_within_s: float = 300.0
    room_within_s: float = 60.0  # how long a base waits for others to become idle
    cache_bytes: int = 0  # budget of the artifact cache; 0: none


class State(Enum):
    LOADING = "loading"
    READY = "ready"
    ENDING = "ending"


class HeldEngine:
    """One engine process, or its becoming. Fields are guarded by the lock of `Engines`, the pipe by its own."""

    def __init__(self, base: str, *, worker: str) -> None:
        self.base = base
        self.name = f"{worker}.{base[:8]}.{secrets.token_hex(3)}"
        self.state = State.LOADING
        self.given: dict[str, GenerationRequest] = {}
        self.room = True
        self.memory_bytes = 0
        self.stats: dict[str, Any] = {}
        self.used_at = self.heard_at = self.began_at = time.monotonic()
        self.process: subprocess.Popen[str] | None = None
        self._waiting: list[str] = []
        self._pipe = threading.Lock()

    @property
    def idle(self) -> bool:
        return self.state is State.READY and not self.given

    def tell(self, **order: Any) -> None:
        """Sends a line, or keeps it until there is a process. A dead process needs none: its end fails what it held."""
        with self._pipe:
            self._waiting.append(json.dumps(order, ensure_ascii=False) + "\n")
            self._send_waiting()

    def start(self, order: Order, *, threads: int) -> IO[str]:
        """Starts the process; returns its output.

        Its threads sleep while they wait for each other. Spinning, they stop a busy machine: on 2 cores under a load of 8, a
        step of SmolLM2-135M took 1.9 s instead of 0.2 s.
        """
        environment = {"OMP_WAIT_POLICY": "passive"} | os.environ | {"TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
        if threads:
            environment["OMP_NUM_THREADS"] = str(threads)
        process = subprocess.Popen(
            [sys.executable, "-m", "inference.engine_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            cwd=Path(__file__).resolve().parent.parent,
            start_new_session=True,  # Ctrl-C ends the worker, which ends its engines when they have finished
            text=True,
            encoding="utf-8",
        )
        assert process.stdout is not None
        with self._pipe:
            self._waiting.insert(0, json.dumps(order.to_json()) + "\n")
            self.process = process
            self._send_waiting()
        return process.stdout

    def _send_waiting(self) -> None:
        if self.process is None:
            return
        assert self.process.stdin is not None
        try:
            self.process.stdin.write("".join(self._waiting))
            self.process.stdin.flush()
        except (BrokenPipeError, ValueError):
            log.info("engine takes no more orders", engine=self.name)
        self._waiting.clear()

    def close(self) -> None:
        """Closes the process's input, on which it ends."""
        with self._pipe:
            if self.process is not None and self.process.stdin is not None:
                try:
                    self.process.stdin.close()
                except BrokenPipeError:
                    log.info("engine has ended already", engine=self.name)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()

    def wait(self) -> int | None:
        """The exit status, after killing what does not end by itself; None when there never was a process."""
        if self.process is None:
            return None
        try:
            return self.process.wait(timeout=ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


class Engines:
    """All engines of this worker.

    `on_change(base, held)` is called, from an engine's own thread, when a base has become ready and when it is gone.
    """

    def __init__(
        self, house: EngineHouse, *, delivery: Delivery, valkey: redis.Redis, on_change: Callable[[str, bool], None] | None = None
    ) -> None:
        self._house = house
        self._delivery = delivery
        self._valkey = valkey
        self._on_change = on_change or (lambda base, held: None)
        self._artifacts = ArtifactStore(house.artifacts)
        self._engines: dict[str, HeldEngine] = {}  # by base: those that take requests
        self._present: set[HeldEngine] = set()  # those that may still have memory
        self._changed = threading.Condition()
        self._draining = False
        threading.Thread(target=self._watch, name="engine-watch", daemon=True).start()

    # ------------------------------------------------------------ requests

    def submit(self, request: GenerationRequest) -> None:
        """Hands the request to its base's engine, waiting only until that has room. Every failure is answered in its stream."""
        engine = self._place(request)
        if engine is not None:
            engine.tell(do="submit", request=request.to_json())

    def _place(self, request: GenerationRequest) -> HeldEngine | None:
        """The engine that now counts this request as its own; None when the request was answered instead."""
        look_at = time.monotonic() + LEASE_LOOK_EVERY_S
        while True:
            with self._changed:
                if self._draining:
                    self._delivery.answer(failed(request, FailureCode.NO_WORKER, "The worker is shutting down."))
                    return None
                engine = self._engines.get(request.base) or self._begin(request.base)
                if engine.room and len(engine.given) < self._house.held_at_most:
                    engine.given[request.id] = request
                    engine.used_at = time.monotonic()
                    return engine
                self._changed.wait(timeout=LEASE_LOOK_EVERY_S)
            if time.time() > request.deadline:
                self._delivery.answer(ended(request, FinishReason.DEADLINE))
                return None
            if time.monotonic() > look_at:
                look_at = time.monotonic() + LEASE_LOOK_EVERY_S
                if self._given_up(request):
                    self._delivery.answer(ended(request, FinishReason.CANCELLED))
                    return None

    def _given_up(self, request: GenerationRequest) -> bool:
        try:
            return is_given_up(request, self._valkey)
        except redis.exceptions.RedisError as error:
            log.warning("lease not read", generation=request.id, error=repr(error))
            return False

    # ------------------------------------------------------------ an engine's life

    def _begin(self, base: str) -> HeldEngine:
        engine = HeldEngine(base, worker=self._house.worker)
        self._engines[base] = engine
        self._present.add(engine)
        # The kernel ends an engine with the thread that started it, so this thread lives exactly as long as its engine.
        threading.Thread(target=self._live, args=(engine,), name=f"engine-{base[:8]}", daemon=True).start()
        return engine

    def _live(self, engine: HeldEngine) -> None:
        code, message = FailureCode.ENGINE_DIED, ""
        try:
            folder = self._artifacts.materialise(engine.base, self._house.cache)
            output = engine.start(self._order(engine, folder), threads=self._house.threads)
            for line in output:
                said = json.loads(line)
                if said["type"] == "unfit":
                    code, message = FailureCode.BASE_UNAVAILABLE, f"The base could not be loaded: {said['message']}"
                else:
                    self._hear(engine, said)
        except Unfit as error:
            code, message = error.code, str(error)
        except ArtifactError as error:
            code, message = FailureCode.BASE_UNAVAILABLE, f"The base could not be read: {error}"
        except Exception as error:  # the edge of the thread: whoever waits for this engine must hear of it
            log.exception("engine not started", engine=engine.name)
            code, message = FailureCode.BASE_UNAVAILABLE, f"The base could not be loaded: {type(error).__name__}: {error}"
        finally:
            self._bury(engine, code, message)

    def _order(self, engine: HeldEngine, folder: Path) -> Order:
        """What the process is told to do, after room was made for it. Raises Unfit."""
        need = fit(folder, budget_bytes=self._house.memory_bytes, options=self._house.options)
        self._make_room(engine, need.bytes)
        log.info("loading base", engine=engine.name, base=engine.base, memory_mb=need.bytes // 2**20)
        return Order(
            engine=engine.name,
            base=engine.base,
            worker=self._house.worker,
            folder=str(folder),
            redis=self._house.redis_url,
            artifacts=self._house.artifacts,
            cache=str(self._house.cache),
            parent=os.getpid(),
            options={**need.options, "name": engine.name},
        )

    def _make_room(self, engine: HeldEngine, need_bytes: int) -> None:
        """Reserves memory for the engine, unloading idle bases, those used longest ago first. Raises Unfit."""
        deadline = time.monotonic() + self._house.room_within_s
        with self._changed:
            while sum(other.memory_bytes for other in self._present) + need_bytes > self._house.memory_bytes:
                leaving = any(other.state is State.ENDING for other in self._present)
                idle = sorted((other for other in self._engines.values() if other.idle), key=lambda other: other.used_at)
                if idle and not leaving:
                    self._retire(idle[0], why="another base needs the room")
                if time.monotonic() > deadline:
                    raise Unfit("All bases held by this worker are busy. Try again shortly.", code=FailureCode.OVERLOADED)
                self._changed.wait(timeout=WATCH_EVERY_S)
            engine.memory_bytes = need_bytes
            engine.began_at = engine.heard_at = time.monotonic()

    def _hear(self, engine: HeldEngine, said: dict[str, Any]) -> None:
        with self._changed:
            engine.heard_at = time.monotonic()
            match said["type"]:
                case "ready" if engine.state is State.LOADING:
                    engine.state = State.READY
                case "room":
                    engine.room = said["room"]
                case "beat":
                    engine.stats = {key: value for key, value in said.items() if key != "type"}
                case "finished":
                    request = engine.given.pop(said["event"]["request"], None)
                    engine.used_at = time.monotonic()
                    self._log_end(engine, request, said["event"])
            self._changed.notify_all()
        if said["type"] == "finished":
            self._delivery.settle(said["event"])
        if said["type"] == "ready":
            log.info("base ready", engine=engine.name, base=engine.base, load_s=said["load_s"])
            self._on_change(engine.base, True)

    def _log_end(self, engine: HeldEngine, request: GenerationRequest | None, event: dict[str, Any]) -> None:
        log.info(
            "generation finished",
            request_id=request.trace if request else "",
            generation=event["request"],
            engine=engine.name,
            reason=event["reason"],
            failure=event["failure"],
            first_token_ms=event["first_token_ms"],
            duration_ms=event["duration_ms"],
            **event["usage"],
        )

    def _retire(self, engine: HeldEngine, *, why: str) -> None:
        """Begins an engine's orderly end; the caller holds the lock and knows that it has no requests."""
        log.info("unloading base", engine=engine.name, base=engine.base, why=why)
        engine.state = State.ENDING
        self._engines.pop(engine.base, None)
        threading.Thread(target=engine.close, name="engine-close", daemon=True).start()

    def _bury(self, engine: HeldEngine, code: FailureCode, message: str) -> None:
        """Fails what a gone engine still held, and forgets the engine."""
        engine.close()
        status = engine.wait()
        with self._changed:
            orderly = engine.state is State.ENDING
            engine.state = State.ENDING
            if self._engines.get(engine.base) is engine:
                del self._engines[engine.base]
            lost = list(engine.given.values())
            engine.given.clear()
            self._present.discard(engine)
            self._changed.notify_all()
        if not orderly:
            log.error("engine ended", engine=engine.name, status=status, lost=len(lost), reason=message)
        for request in lost:
            self._delivery.answer(failed(request, code, message or f"The engine ended while it answered (status {status})."))
        self._forget(engine)
        self._on_change(engine.base, False)
        self._trim_cache()

    def _forget(self, engine: HeldEngine) -> None:
        try:
            with self._changed:
                if engine.base not in self._engines:
                    self._valkey.zrem(holders_key(engine.base), self._house.worker)
            self._valkey.delete(engine_key(engine.name))
        except redis.exceptions.RedisError as error:
            log.warning("heartbeats left to expire", engine=engine.name, error=repr(error))

    def _trim_cache(self) -> None:
        if self._house.cache_bytes:
            freed = evict(self._house.cache, budget_bytes=self._house.cache_bytes)
            log.info("artifact cache trimmed", freed_bytes=freed)

    # ------------------------------------------------------------ watching

    def _watch(self) -> None:
        while True:
            time.sleep(WATCH_EVERY_S)
            with self._changed:
                now = time.monotonic()
                for engine in list(self._present):
                    self._look_at(engine, now)

    def _look_at(self, engine: HeldEngine, now: float) -> None:
        if engine.process is None:
            return
        if engine.state is State.LOADING and now - engine.began_at > self._house.load_within_s:
            log.error("engine takes too long to load", engine=engine.name)
            engine.kill()
        if engine.state is State.READY and now - engine.heard_at > self._house.hung_after_s:
            log.error("engine hangs", engine=engine.name, silent_s=round(now - engine.heard_at, 1))
            engine.kill()
        if engine.idle and now - engine.used_at > self._house.idle_s:
            self._retire(engine, why="idle")

    def held(self) -> dict[str, dict[str, Any]]:
        """The ready bases and the newest figures of their engines."""
        with self._changed:
            return {e.base: {**e.stats, "engine": e.name} for e in self._engines.values() if e.state is State.READY}

    def pids(self) -> dict[str, int]:
        """Process ids of the engines by base."""
        with self._changed:
            return {engine.base: engine.process.pid for engine in self._engines.values() if engine.process is not None}

    def drain(self, *, within_s: float) -> None:
        """Takes no more requests, lets those under way finish, then ends all engines; what is not done by then fails."""
        deadline = time.monotonic() + within_s
        with self._changed:
            self._draining = True
            while any(engine.given for engine in self._present) and time.monotonic() < deadline:
                self._changed.wait(timeout=0.2)
            engines = list(self._present)
            for engine in engines:
                if engine.given:
                    engine.kill()
                else:
                    engine.state = State.ENDING
        for engine in engines:
            engine.close()
        with self._changed:
            while self._present and time.monotonic() < deadline + ENDS_WITHIN_S:
                self._changed.wait(timeout=0.2)


def is_given_up(request: GenerationRequest, valkey: redis.Redis) -> bool:
    """True when a leased request was cancelled, or nobody reads its stream."""
    if not request.leased:
        return False
    lease = valkey.get(lease_key(request.id))
    return lease is None or lease == CANCELLED
