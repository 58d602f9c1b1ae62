"""Many requests of every kind, ended in every way at any moment: they leave no block, slot, hold, thread or memory behind."""

from __future__ import annotations

import gc
import random
import threading
import time
import weakref
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from inference import engine as engine_module
from inference.answers import Answer
from inference.engine import EngineCore
from inference.native import NativeRunner
from inference.prompts import RequestRefused
from inference.protocol import FailureCode, Finished, FinishReason, GenerationRequest, Priority, Started
from inference.reading import MeanPool, Reader
from inference.runner import TorchRunner
from inference.sampling_params import Form, Grammar
from tests.inference.asking import PROMPTS, a_request, an_engine, an_engine_with, finish, run, texts
from tests.inference.serving import wait_until
from tests.inference.tiny import tiny_adapter, tiny_base, write_json

WARMED_UP, REQUESTS = 2_000, 10_000
MOST_GROWTH_BYTES = 8 * 2**20  # of what the process holds, from WARMED_UP to REQUESTS: 1 KiB for each request between
MOST_NEW_OBJECTS = 1_000  # that the garbage collector knows: an eighth of one for each request between
UNKNOWN = "f" * 64
GRAMMARS = (
    Grammar(Form.CHOICE, ("yes", "no", "it depends")),
    Grammar(Form.REGEX, "(Hello, )*"),  # never has to end
    Grammar(Form.JSON_SCHEMA, {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}),
    Grammar(Form.REGEX, r"(a)\1"),  # not supported
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def adapters(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By digest: three that can be used, of two ranks, and one that cannot."""
    place = tmp_path_factory.mktemp("adapters")
    found = {str(seed) * 64: tiny_adapter(place / str(seed), folder, seed=seed, rank=4 * (1 + seed % 2)) for seed in (1, 2, 3)}
    broken = tiny_adapter(place / "broken", folder)
    write_json(broken / "adapter_config.json", {"peft_type": "IA3"})
    return found | {"b" * 64: broken}


def any_request(choose: random.Random, adapters: dict[str, Path], *, now: float, longest: int) -> tuple[GenerationRequest, Reader | None]:
    """Of any kind, also of those that will be refused; its answer has up to `longest` tokens."""
    sampling: dict[str, Any] = {
        "max_tokens": choose.randint(1, longest),
        "temperature": choose.choice([0.0, 0.0, 1.0]),
        "seed": choose.getrandbits(32),
        "ignore_eos": choose.random() < 0.8,
    }
    for chance, some in (
        (0.1, {"n": choose.randint(2, 3)}),
        (0.2, {"stop": ("e", choose.choice(["zz", "a" * 10_000]))}),
        (0.1, {"logprobs": choose.randint(0, 3)}),
        (0.05, {"prompt_logprobs": choose.randint(0, 2)}),
        (0.1, {"top_k": 5, "top_p": 0.9, "frequency_penalty": 0.5}),
        (0.08, {"grammar": choose.choice(GRAMMARS)}),
        (0.1, {"logit_bias": {choose.randrange(400): 5.0}}),
    ):
        if choose.random() < chance:
            sampling |= some
    text = f"{choose.choice(PROMPTS)[:60]} {choose.randrange(50)}"
    if choose.random() < 0.02:
        text = "word " * 700  # more than the context
    fields: dict[str, Any] = {
        "adapter": choose.choice([*adapters, UNKNOWN]) if choose.random() < 0.15 else None,
        "tenant": f"tenant {choose.randrange(10**9)}",
        "version": f"version {choose.randrange(5)}",
        "priority": choose.choice([Priority.INTERACTIVE, Priority.BATCH]),
        "deadline": now + choose.choice([-1.0, 3.0]) if choose.random() < 0.05 else float("inf"),
    }
    reader = MeanPool() if choose.random() < 0.03 else None
    return a_request(text, **sampling, **fields), reader


def taken(engine: EngineCore, request: GenerationRequest, reader: Reader | None, adapters: dict[str, Path]) -> Answer | None:
    """The answer under way; None when the request was refused."""
    try:
        return engine.submit(request, adapter_folder=adapters.get(request.adapter or ""), reader=reader)
    except RequestRefused as error:
        if error.code not in (FailureCode.CONTEXT_LENGTH_EXCEEDED, FailureCode.ADAPTER_UNAVAILABLE):
            raise
        return None


def poison(engine: EngineCore, choose: random.Random) -> None:
    """Puts numbers that are not finite where a request under way will read."""
    running = engine._scheduler.running
    if running and (blocks := choose.choice(running).blocks.blocks):
        engine._runner.values[:, blocks[0]] = float("nan")


def require_nothing_left(engine: EngineCore) -> None:
    pool, stats = engine._pool, engine.stats()
    assert not engine.has_work
    assert (engine._answers, engine._loading, engine._scheduler.running, engine._scheduler.waiting) == ({}, {}, [], [])
    assert stats["blocks_used"] == 0
    assert stats["blocks_free"] + stats["blocks_cached"] == stats["blocks_total"]
    assert len(pool._cached) == len(pool._key_of) == pool.idle
    assert not any(pool._references[block] for block in range(1, pool.total + 1))
    wait_until(lambda: not any(thread.name == "adapter-loader" for thread in threading.enumerate()), within_s=10)
    stats = engine.stats()
    assert (stats["adapters_in_use"], stats["adapters_loading"]) == (0, 0)
    assert stats["adapter_bytes"] <= engine.options.adapter_bytes


@pytest.mark.parametrize("runner", [TorchRunner, NativeRunner])
@pytest.mark.parametrize("seed", range(6))
def test_whatever_ends_a_request_at_whatever_moment_leaves_nothing_behind(
    folder: Path, adapters: dict[str, Path], seed: int, runner: type[TorchRunner | NativeRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    choose = random.Random(seed)
    clock = SimpleNamespace(now=0.0, time=lambda: clock.now, monotonic=time.monotonic)
    monkeypatch.setattr(engine_module, "time", clock)
    cramped = {"cache_tokens": 320, "max_batch_tokens": 40, "max_running": 6, "adapter_bytes": 100_000}
    engine = an_engine_with(folder, runner, **cramped)
    answers: list[weakref.ref[Answer]] = []
    events: list[tuple[str, Any]] = []

    for _ in range(250):
        clock.now += 1
        if choose.random() < 0.5 and engine.has_room:
            answer = taken(engine, *any_request(choose, adapters, now=clock.now, longest=60), adapters)
            answers += [weakref.ref(answer)] if answer is not None else []
            del answer
        if engine._answers and choose.random() < 0.1:
            engine.cancel(choose.choice(list(engine._answers)))
        if choose.random() < 0.05:
            poison(engine, choose)
        events += engine.step()
    if choose.random() < 0.5:
        for request_id in list(engine._answers):
            engine.cancel(request_id)
    events += finish(engine)

    require_nothing_left(engine)
    engine.close()
    wait_until(lambda: not any(thread.name.startswith("grammar") for thread in threading.enumerate()), within_s=10)
    assert engine.stats()["preemptions"] > 0
    began = [id_ for id_, event in events if isinstance(event, Started)]
    ended = [id_ for id_, event in events if isinstance(event, Finished)]
    assert len(began) == len(answers) > 40
    assert sorted(began) == sorted(ended)
    reasons = Counter(event.reason for _, event in events if isinstance(event, Finished))
    assert reasons.keys() == set(FinishReason)
    gc.collect()
    assert [answer() for answer in answers if answer() is not None] == []
    fresh = an_engine_with(folder, runner, **cramped)
    assert texts(run(engine, a_request("rate it, now"))) == texts(run(fresh, a_request("rate it, now")))


def test_ten_thousand_requests_of_every_kind_leave_memory_as_it_was(folder: Path, adapters: dict[str, Path]) -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:  # where no other test has left its memory
        reasons, held = fresh.submit(answer_many, folder, adapters).result()

    assert sum(reasons.values()) == REQUESTS
    assert min(reasons[reason] for reason in (*FinishReason, "refused")) > 50
    assert held[REQUESTS][0] - held[WARMED_UP][0] < MOST_GROWTH_BYTES
    assert held[REQUESTS][1] - held[WARMED_UP][1] < MOST_NEW_OBJECTS


def answer_many(folder: Path, adapters: dict[str, Path]) -> tuple[Counter[str], dict[int, tuple[int, int]]]:
    """How REQUESTS ended, and the bytes and objects that the process holds after WARMED_UP of them and after all."""
    choose = random.Random(1)
    engine = an_engine(folder, adapter_bytes=100_000)
    reasons: Counter[str] = Counter()
    held: dict[int, tuple[int, int]] = {}

    for number in range(1, REQUESTS + 1):
        while not engine.has_room:
            reasons.update(event.reason for _, event in engine.step() if isinstance(event, Finished))
        if taken(engine, *any_request(choose, adapters, now=time.time(), longest=6), adapters) is None:
            reasons["refused"] += 1
        if engine._answers and choose.random() < 0.03:
            engine.cancel(choose.choice(list(engine._answers)))
        if number in (WARMED_UP, REQUESTS):
            reasons.update(event.reason for _, event in finish(engine) if isinstance(event, Finished))
            require_nothing_left(engine)
            held[number] = (resident_bytes(), objects())

    engine.close()
    return reasons, held


def resident_bytes() -> int:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def objects() -> int:
    gc.collect()
    return len(gc.get_objects())
