"""The engines of one generation worker: a process per base, within a memory budget, loaded on demand and watched.

A request waits here until its engine is ready and has room, and nothing waits with it: no thread, and no other base.
Whatever becomes of an engine, each request gets its last event: from the engine itself, or from here when it waited too
long or in vain, or when the engine could not be loaded, died or hung.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
import redis.exceptions
import structlog

from inference.artifacts import ArtifactError, ArtifactStore, evict
from inference.delivery import Delivery, ended, failed
from inference.engine_process import HUNG_AFTER_S, Order
from inference.footprint import Unfit, fit, fit_beside_server, on_gpu
from inference.held_engine import ENDS_WITHIN_S, HeldEngine, State
from inference.precision import Precision
from inference.protocol import (
    CANCELLED,
    FailureCode,
    FinishReason,
    GenerationRequest,
    Priority,
    engine_key,
    holders_key,
    lease_key,
)
from inference.vllm_choice import VllmChoice

log = structlog.get_logger(__name__)

WATCH_EVERY_S = 0.5
MEMORY_OVERRUN = 1.25  # an engine that takes so much more than was stated for it is killed, before the system kills anybody
SHUTTING_DOWN = "The worker is shutting down."


@dataclass(frozen=True)
class EngineHouse:
    """Where engines run and what they may take."""

    worker: str
    redis_url: str
    artifacts: str  # URL
    cache: Path
    memory_bytes: int  # for all engines together
    precision: Precision
    options: dict[str, Any] = field(default_factory=dict)  # of EngineOptions, for every engine
    vllm: VllmChoice = field(default_factory=VllmChoice)  # bases whose engines ask a vLLM server
    threads: int = 0  # of an engine's computations; 0: torch decides
    held_at_most: int = 48  # requests an engine is given at once: those that run and, for it to choose from, some that wait
    batch_at_most: int = 16  # requests of batches that it is given besides: they take nobody's place
    idle_s: float = 900.0  # an engine without requests for so long is unloaded
    hung_after_s: float = HUNG_AFTER_S  # an engine that has said nothing for so long is killed
    load_within_s: float = 300.0
    room_within_s: float = 60.0  # how long a base waits for others to become idle
    cache_bytes: int = 0  # budget of the artifact cache; 0: none


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
        self._on_gpu = on_gpu(house.options.get("device", "cpu"))
        threading.Thread(target=self._watch, name="engine-watch", daemon=True).start()

    # ------------------------------------------------------------ requests

    def submit(self, request: GenerationRequest) -> None:
        """Has the request answered as soon as its base's engine has room; does not wait for that. Every failure is answered too."""
        with self._changed:
            if self._draining:
                self._delivery.answer(failed(request, FailureCode.NO_WORKER, SHUTTING_DOWN))
                return
            engine = self._engines.get(request.base) or self._begin(request.base)
            engine.waiting[request.id] = request
            self._hand_over(engine)

    def _hand_over(self, engine: HeldEngine) -> None:
        """Gives the engine what waits for it, as far as it has room. The caller holds the lock."""
        while (request := self._next(engine)) is not None:
            del engine.waiting[request.id]
            engine.given[request.id] = request
            engine.used_at = time.monotonic()
            engine.tell(do="submit", request=request.to_json())

    def _next(self, engine: HeldEngine) -> GenerationRequest | None:
        """Who of the waiting has its turn: an interactive one, and behind those one of a batch.

        Of several the one whose tenant has the fewest requests with the engine, and of those the first.
        """
        for priority in (Priority.INTERACTIVE, Priority.BATCH):
            waiting = [request for request in engine.waiting.values() if request.priority == priority]
            if waiting and self._has_room(engine, priority):
                held = Counter(request.tenant for request in engine.given.values() if request.priority == priority)
                return min(waiting, key=lambda request: held[request.tenant])
        return None

    def _has_room(self, engine: HeldEngine, priority: Priority = Priority.INTERACTIVE) -> bool:
        if engine.state is not State.READY or not engine.room:
            return False
        most = self._house.batch_at_most if priority == Priority.BATCH else self._house.held_at_most
        return sum(request.priority == priority for request in engine.given.values()) < most

    def wait_for_room(self, base: str, *, within_s: float) -> bool:
        """Whether one more request for the base would be begun at once, here by loading the base if need be; waits for that."""

        def would_begin() -> bool:
            engine = self._engines.get(base)
            if engine is None:
                return True
            return self._has_room(engine) and all(waiting.priority == Priority.BATCH for waiting in engine.waiting.values())

        with self._changed:
            return self._changed.wait_for(would_begin, timeout=within_s)

    def cancel(self, requests: Collection[GenerationRequest]) -> None:
        """Ends those that have not ended yet; their last events say so."""
        with self._changed:
            for engine in self._present:
                self._cancel(engine, requests)

    def _cancel(self, engine: HeldEngine, requests: Collection[GenerationRequest]) -> None:
        """Of these requests those that the engine has. The caller holds the lock."""
        for request in requests:
            if request.id in engine.given:
                engine.tell(do="cancel", request=request.id)
            elif engine.waiting.pop(request.id, None) is not None:
                self._delivery.answer(ended(request, FinishReason.CANCELLED))

    def _let_go(self) -> None:
        """Answers the waiting whose time is over, and those whom nobody wants any more."""
        with self._changed:
            waiting = [(engine, request) for engine in self._present for request in engine.waiting.values()]
        unwanted = given_up([request for _, request in waiting], self._valkey)
        for engine, request in waiting:
            if time.time() > request.deadline:
                reason = FinishReason.DEADLINE
            elif request.id in unwanted:
                reason = FinishReason.CANCELLED
            else:
                continue
            with self._changed:
                if engine.waiting.pop(request.id, None) is not None:  # it was not handed over in between
                    self._delivery.answer(ended(request, reason))

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
        if (beside_server := self._house.vllm.of(engine.base)) is not None:
            need = fit_beside_server(folder, budget_bytes=self._house.memory_bytes, options=beside_server)
        else:
            options = {**self._house.options, "dtype": self._house.precision.of(engine.base)}
            need = fit(folder, budget_bytes=self._house.memory_bytes, options=options)
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
        """Reserves memory for the engine, unloading idle bases, those used longest ago first. Raises Unfit.

        Where people wait for the engine, a base that works for batches alone is made idle.
        """
        deadline = time.monotonic() + self._house.room_within_s
        with self._changed:
            while sum(other.memory_bytes for other in self._present) + need_bytes > self._house.memory_bytes:
                leaving = any(other.state is State.ENDING for other in self._present)
                idle = sorted((other for other in self._engines.values() if other.idle), key=lambda other: other.used_at)
                if idle and not leaving:
                    self._retire(idle[0], why="another base needs the room")
                elif not leaving and engine.serves_people:
                    self._have_a_batch_give_way()
                if time.monotonic() > deadline:
                    raise Unfit("All bases held by this worker are busy. Try again shortly.", code=FailureCode.OVERLOADED)
                self._changed.wait(timeout=WATCH_EVERY_S)
            engine.memory_bytes = need_bytes
            engine.began_at = engine.heard_at = time.monotonic()

    def _have_a_batch_give_way(self) -> None:
        """Their shards hear that their requests were cancelled, and go on later or elsewhere. The caller holds the lock."""
        busy = [other for other in self._engines.values() if other.state is State.READY and not other.serves_people]
        for engine in sorted(busy, key=lambda other: other.began_at)[:1]:
            log.info("batches give way", engine=engine.name, base=engine.base)
            self._cancel(engine, [*engine.waiting.values(), *engine.given.values()])

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
                    request = engine.given.get(said["event"]["request"])
                    if request is not None and request.attempt == said["event"]["attempt"]:  # not one that a later attempt has overtaken
                        del engine.given[request.id]
                    engine.used_at = time.monotonic()
                    self._log_end(engine, request, said["event"])
            self._hand_over(engine)
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
        self._engines.pop(engine.base, None)
        engine.close()

    def _bury(self, engine: HeldEngine, code: FailureCode, message: str) -> None:
        """Fails what a gone engine held, forgets the engine, and has what waited for it answered by another.

        What waited for an engine that never became ready fails with it: another would fare no better.
        """
        with self._changed:
            orderly, served = engine.state is State.ENDING, engine.state is State.READY
            engine.close()
        status = engine.wait()
        with self._changed:
            if self._engines.get(engine.base) is engine:
                del self._engines[engine.base]
            lost = list(engine.given.values())
            if not served:
                lost += engine.waiting.values()
            elif engine.waiting:
                self._begin(engine.base).waiting.update(engine.waiting)
            engine.given.clear()
            engine.waiting.clear()
            self._present.discard(engine)
            self._changed.notify_all()
        if not orderly:
            log.error("engine ended", engine=engine.name, status=status, lost=len(lost), reason=message)
        message = message or engine.killed_for or f"The engine ended while it answered (status {status})."
        for request in lost:
            self._delivery.answer(failed(request, code, message))
        self._forget(engine)
        self._on_change(engine.base, False)
        self._trim_cache()

    def _forget(self, engine: HeldEngine) -> None:
        try:
            with self._changed:
                successor = self._engines.get(engine.base)
                if successor is None or successor.state is State.LOADING:
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
            self._let_go()

    def _look_at(self, engine: HeldEngine, now: float) -> None:
        if engine.process is None:
            return
        if engine.state is State.LOADING and now - engine.began_at > self._house.load_within_s:
            log.error("engine takes too long to load", engine=engine.name)
            engine.kill()
        if engine.state is State.READY and now - engine.heard_at > self._house.hung_after_s:
            log.error("engine hangs", engine=engine.name, silent_s=round(now - engine.heard_at, 1))
            engine.kill()
        if engine.state is State.ENDING and now - engine.ended_at > ENDS_WITHIN_S:
            log.error("engine does not end", engine=engine.name)
            engine.kill()
        if engine.state is State.READY and not self._on_gpu and (own_bytes := engine.own_bytes) > MEMORY_OVERRUN * engine.memory_bytes:
            log.error("engine takes more memory than it may", engine=engine.name, own_mb=own_bytes >> 20, may_mb=engine.memory_bytes >> 20)
            engine.kill("The engine took more memory than it may. Try again, with less text or fewer adapters at once.")
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
            for engine in self._present:
                for request in engine.waiting.values():
                    self._delivery.answer(failed(request, FailureCode.NO_WORKER, SHUTTING_DOWN))
                engine.waiting.clear()
            while any(engine.given for engine in self._present) and time.monotonic() < deadline:
                self._changed.wait(timeout=0.2)
            engines = list(self._present)
            for engine in engines:
                if engine.given:
                    engine.kill()
                else:
                    engine.close()
        for engine in engines:
            engine.close()
        with self._changed:
            while self._present and time.monotonic() < deadline + ENDS_WITHIN_S:
                self._changed.wait(timeout=0.2)


def given_up(requests: list[GenerationRequest], valkey: redis.Redis) -> set[str]:
    """Ids of those that were cancelled, or whose stream nobody reads. None while Valkey can't be asked."""
    leased = [request.id for request in requests if request.leased]
    if not leased:
        return set()
    try:
        leases: Any = valkey.mget([lease_key(request) for request in leased])
    except redis.exceptions.RedisError as error:
        log.warning("leases not read", error=repr(error))
        return set()
    return {request for request, lease in zip(leased, leases, strict=True) if lease is None or lease == CANCELLED}
