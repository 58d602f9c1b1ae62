"""The rows of the table: what each measures, on whom, and what it must reach.

A rate of decoding is what 1 + n tokens take longer than 1 token, for the same number of other prompts: reading the prompts
is in both and falls out, for every side in the same way and without looking into it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from benchmarks.sides import NATIVE, PURE, Child, SideFailed
from benchmarks.workload import Prompts, zipf

Sample = dict[str, float]  # "value" is what is compared
TOKENS_PER_S, MS, MIB = "tok/s", "ms", "MiB"
NUMBER_BYTES = {"float32": 4, "bfloat16": 2, "int8": 2}  # of an adapter beside weights in that precision


@dataclass(frozen=True)
class Sizes:
    prompt: int = 128
    alone: int = 128  # tokens that one stream decodes
    together: int = 64  # tokens that each stream of a batch decodes
    batch: int = 32
    ragged: int = 64  # requests
    shortest: int = 16
    longest: int = 256
    registered: int = 1000  # adapters
    host: int = 100  # adapters that the host's memory may hold
    zipf_requests: int = 192
    long_prompt: int = 512
    busy: int = 64  # batch requests that run while interactive ones arrive
    arrivals: int = 20
    answer: int = 4  # tokens of an interactive request


QUICK = Sizes(
    prompt=32,
    alone=8,
    together=8,
    batch=4,
    ragged=6,
    longest=32,
    registered=12,
    host=4,
    zipf_requests=8,
    long_prompt=192,
    busy=8,
    arrivals=3,
)


class Compare(StrEnum):
    RATE = "its figure over the peer's"
    TIME = "the peer's figure over its"
    SHARE = "at least this share of its own"
    LIMIT = "at most this multiple of its own"
    NEAR = "as near to what is stated"


@dataclass(frozen=True)
class Goal:
    """What a ratio must reach in each column, and what is aimed at. `peer` is the beginning of a side's key, or "own"."""

    peer: str
    pure: float | None = None
    native: float | None = None
    aim: float | None = None
    most: tuple[tuple[str, str, float], ...] = ()  # (column, name in the sample, at most), beside the ratio


@dataclass(frozen=True)
class Work:
    """What a row has to work with."""

    prompts: Prompts
    sizes: Sizes
    adapters: list[Path]


@dataclass(frozen=True)
class Row:
    name: str
    title: str
    own: str  # what is measured on its own, for the rows that compare with themselves
    shown: str  # which number of a sample the table shows as the figure
    unit: str
    compare: Compare
    measure: Callable[[Child, Work], Sample]
    dtypes: tuple[str, ...]
    runs: int
    goals: tuple[Goal, ...]
    peers: tuple[tuple[str, str], ...] = ()  # (side, dtype)
    program: str = "ours"
    streams: Callable[[Sizes], int] = field(default=lambda sizes: 1)
    padded_batch: int | None = None  # of transformers; None: all streams
    adapters: Callable[[Sizes], int] = field(default=lambda sizes: 0)
    engine: Callable[[Sizes, int, str], dict[str, Any]] = field(default=lambda sizes, numbers, dtype: {})  # options


def _decode_tokens_per_s(child: Child, work: Work, streams: int, tokens: int, adapters: list[Path] | None = None) -> float:
    """Not a number where other work made the shorter answer take longer."""
    first_s = _seconds(child, work.prompts.take(streams, work.sizes.prompt), 1, adapters)
    whole_s = _seconds(child, work.prompts.take(streams, work.sizes.prompt), 1 + tokens, adapters)
    return streams * tokens / (whole_s - first_s) if whole_s > first_s else math.nan


def _seconds(child: Child, prompts: list[list[int]], max_tokens: int | list[int], adapters: list[Path] | None = None) -> float:
    answered = child.generate(prompts, max_tokens, adapters)
    if answered.failed:
        raise SideFailed(f"{answered.failed} of {len(prompts)} requests failed")
    return answered.seconds


def one_stream(child: Child, work: Work) -> Sample:
    return {"value": _decode_tokens_per_s(child, work, 1, work.sizes.alone)}


def batch(child: Child, work: Work) -> Sample:
    return {"value": _decode_tokens_per_s(child, work, work.sizes.batch, work.sizes.together)}


def ragged(child: Child, work: Work) -> Sample:
    sizes, chooser = work.sizes, work.prompts.random
    prompts = [work.prompts.one(chooser.randint(sizes.shortest, sizes.longest)) for _ in range(sizes.ragged)]
    counts = [chooser.randint(sizes.shortest, sizes.longest) for _ in prompts]
    seconds = _seconds(child, prompts, counts)
    return {"value": sum(counts) / seconds, "seconds": seconds}


def adapters(child: Child, work: Work) -> Sample:
    streams, tokens = work.sizes.batch, work.sizes.together
    base = _decode_tokens_per_s(child, work, streams, tokens)
    mixed = _decode_tokens_per_s(child, work, streams, tokens, work.adapters[:streams])
    return {"value": mixed / base, "own": base, "mixed": mixed, "added_ms": (streams / mixed - streams / base) * 1000}


def many_adapters(child: Child, work: Work) -> Sample:
    count, tokens = work.sizes.zipf_requests, work.sizes.together
    one_s = _seconds(child, work.prompts.take(count, work.sizes.prompt), tokens, [work.adapters[0]] * count)
    drawn = zipf(count, among=len(work.adapters), chooser=work.prompts.random)
    answered = child.generate(work.prompts.take(count, work.sizes.prompt), tokens, [work.adapters[number] for number in drawn])
    own, mixed = count * tokens / one_s, answered.tokens / answered.seconds
    return {"value": mixed / own, "own": own, "mixed": mixed, "failed": answered.failed, "distinct": len(set(drawn))}


def prefill(child: Child, work: Work) -> Sample:
    return {"value": _seconds(child, [work.prompts.one(work.sizes.long_prompt)], 1) * 1000}


def interactive(child: Child, work: Work) -> Sample:
    idle = _first_ms(child, work, [])
    busy = _first_ms(child, work, work.prompts.take(work.sizes.busy, work.sizes.prompt))
    own, p95 = statistics.median(idle), _p95(busy)
    return {"value": p95 / own, "own": own, "own_p95": _p95(idle), "busy_p95": p95, "busy_median": statistics.median(busy)}


def _first_ms(child: Child, work: Work, batch_prompts: list[list[int]]) -> list[float]:
    sizes = work.sizes
    answer = child.ask(
        "first_tokens",
        prompts=work.prompts.take(sizes.arrivals, sizes.prompt),
        max_tokens=sizes.answer,
        batch_prompts=batch_prompts,
        batch_tokens=sizes.longest,
        seed=work.prompts.random.randrange(2**31),
    )
    first_ms: list[float] = answer["value"]["first_ms"]
    return first_ms


def _p95(values: list[float]) -> float:
    return statistics.quantiles(values, n=20, method="inclusive")[-1]


def memory(child: Child, work: Work) -> Sample:
    _seconds(child, work.prompts.take(work.sizes.batch, work.sizes.prompt), work.sizes.together)
    held = child.ask("memory")["value"]
    resident, stated = held["resident_bytes"], held["stated_bytes"]
    return {"value": resident / stated, "own": stated / 2**20, "resident": resident / 2**20}


def _crowd(sizes: Sizes, numbers: int, dtype: str) -> dict[str, Any]:
    """Options under which all requests of a crowd run at once."""
    streams = max(sizes.ragged, sizes.busy) + 1
    return {"max_running": streams, "max_waiting": streams, "cache_tokens": streams * 2 * sizes.longest}


def _at_once(sizes: Sizes, numbers: int, dtype: str) -> dict[str, Any]:
    """Options under which a batch's prompts are read in one step, as vLLM does here by default: all that follows is decoding."""
    return {"max_batch_tokens": sizes.batch * sizes.prompt, "adapter_bytes": 2 * sizes.batch * numbers * NUMBER_BYTES[dtype]}


def _host_budget(sizes: Sizes, numbers: int, dtype: str) -> dict[str, Any]:
    return {"adapter_bytes": sizes.host * numbers * NUMBER_BYTES[dtype]}


BOTH = ("bfloat16", "float32")
TRANSFORMERS = (("transformers", "bfloat16"), ("transformers", "float32"))
VLLM = (("vllm", "bfloat16"), ("vllm", "float32"))
PEFT = (("peft", "bfloat16"), ("peft", "float32"))

ROWS = (
    Row(
        name="one_stream",
        title="one stream, bf16",
        own="",
        shown="value",
        unit=TOKENS_PER_S,
        compare=Compare.RATE,
        measure=one_stream,
        dtypes=("bfloat16",),
        runs=7,
        peers=(*TRANSFORMERS, ("llama.cpp", "BF16")),
        goals=(Goal("transformers/bfloat16", pure=2.2), Goal("llama.cpp", native=1.0, aim=1.2)),
    ),
    Row(
        name="int8",
        title="one stream, int8",
        own="",
        shown="value",
        unit=TOKENS_PER_S,
        compare=Compare.RATE,
        measure=one_stream,
        dtypes=("int8",),
        runs=7,
        peers=(("llama.cpp", "Q8_0"),),
        goals=(Goal("llama.cpp", pure=0.6, native=1.0, aim=1.5),),
    ),
    Row(
        name="batch32",
        title="batch 32, decode",
        own="",
        shown="value",
        unit=TOKENS_PER_S,
        compare=Compare.RATE,
        measure=batch,
        dtypes=BOTH,
        runs=5,
        peers=(*VLLM, ("llama.cpp", "BF16")),
        goals=(Goal("vllm", pure=0.8, native=1.2, aim=1.6),),
        streams=lambda sizes: sizes.batch,
        engine=_at_once,
    ),
    Row(
        name="ragged",
        title="ragged, 64 requests",
        own="",
        shown="value",
        unit=TOKENS_PER_S,
        compare=Compare.RATE,
        measure=ragged,
        dtypes=BOTH,
        runs=3,
        peers=(*VLLM, *TRANSFORMERS, ("llama.cpp", "BF16")),
        goals=(Goal("vllm", pure=1.0, native=1.3, aim=2.0), Goal("transformers", pure=4.0, native=5.0)),
        streams=lambda sizes: sizes.ragged,
        padded_batch=16,
        engine=_crowd,
    ),
    Row(
        name="adapters",
        title="32 adapters of rank 16, batch 32, decode",
        own="own base only, tok/s",
        shown="mixed",
        unit=TOKENS_PER_S,
        compare=Compare.SHARE,
        measure=adapters,
        dtypes=BOTH,
        runs=3,
        peers=PEFT,
        goals=(Goal("own", pure=0.6, native=0.7, aim=0.85, most=((NATIVE, "added_ms", 20.0),)),),
        streams=lambda sizes: sizes.batch,
        adapters=lambda sizes: sizes.batch,
        engine=_at_once,
    ),
    Row(
        name="many_adapters",
        title="1,000 adapters, Zipf, host holds 100",
        own="own one adapter, tok/s",
        shown="mixed",
        unit=TOKENS_PER_S,
        compare=Compare.SHARE,
        measure=many_adapters,
        dtypes=BOTH,
        runs=3,
        goals=(Goal("own", pure=0.5, native=0.6, aim=0.8, most=((PURE, "failed", 0.0), (NATIVE, "failed", 0.0))),),
        streams=lambda sizes: sizes.batch,
        adapters=lambda sizes: sizes.registered,
        engine=_host_budget,
    ),
    Row(
        name="prefill",
        title="prefill 512",
        own="",
        shown="value",
        unit=MS,
        compare=Compare.TIME,
        measure=prefill,
        dtypes=BOTH,
        runs=9,
        peers=(*TRANSFORMERS, ("llama.cpp", "BF16")),
        goals=(Goal("transformers", pure=1.25, native=1.4, aim=2.0),),
    ),
    Row(
        name="interactive",
        title="first token while 64 batch requests run, p95",
        own="own idle, median ms",
        shown="busy_p95",
        unit=MS,
        compare=Compare.LIMIT,
        measure=interactive,
        dtypes=BOTH,
        runs=3,
        program="ours_arrivals",
        goals=(Goal("own", pure=3.0, native=3.0, aim=1.5),),
        engine=_crowd,
    ),
    Row(
        name="memory",
        title="resident memory",
        own="stated, MiB",
        shown="resident",
        unit=MIB,
        compare=Compare.NEAR,
        measure=memory,
        dtypes=(*BOTH, "int8"),
        runs=1,
        goals=(Goal("own", pure=0.1, native=0.1),),
        streams=lambda sizes: sizes.batch,
    ),
)
