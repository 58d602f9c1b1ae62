"""The rows of the table: what each measures, on whom, and what it must reach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from benchmarks import measures
from benchmarks.measures import Sample, Sizes, Work
from benchmarks.sides import NATIVE, PURE, Child

TOKENS_PER_S, MS, MIB = "tok/s", "ms", "MiB"
NUMBER_BYTES = {"float32": 4, "bfloat16": 2, "int8": 2}  # of an adapter beside weights in that precision


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
class Row:
    name: str
    title: str
    unit: str
    compare: Compare
    measure: Callable[[Child, Work], Sample]
    dtypes: tuple[str, ...]
    runs: int
    goals: tuple[Goal, ...]
    peers: tuple[tuple[str, str], ...] = ()  # (side, dtype)
    own: str = ""  # what is measured on its own, for the rows that compare with themselves
    shown: str = "value"  # which number of a sample the table shows as the figure
    program: str = "ours"
    streams: Callable[[Sizes], int] = field(default=lambda sizes: 1)
    padded_batch: int | None = None  # of transformers; None: all streams
    adapters: Callable[[Sizes], int] = field(default=lambda sizes: 0)
    engine: Callable[[Sizes, int, str], dict[str, Any]] = field(default=lambda sizes, numbers, dtype: {})  # options


def _crowd(sizes: Sizes, numbers: int, dtype: str) -> dict[str, Any]:
    """Options under which all requests of a crowd run at once."""
    streams = max(sizes.ragged, sizes.busy) + 1
    return {"max_running": streams, "max_waiting": streams, "cache_tokens": streams * 2 * sizes.longest}


def _whole_crowd(sizes: Sizes, numbers: int, dtype: str) -> dict[str, Any]:
    """The same, with nobody who waits for a single token: longer steps, though a quarter of vLLM's by default."""
    return {**_crowd(sizes, numbers, dtype), **_long_steps(sizes, numbers, dtype)}


def _long_steps(sizes: Sizes, numbers: int, dtype: str) -> dict[str, Any]:
    """Steps as long as the longest prompt of these rows, where nobody else waits for one to end."""
    return {"max_batch_tokens": 512}


def _at_once(sizes: Sizes, numbers: int, dtype: str) -> dict[str, Any]:
    """Options under which a batch's prompts are read in one step, as vLLM does here by default: all that follows is decoding."""
    return {"max_batch_tokens": sizes.batch * sizes.prompt, "adapter_bytes": 2 * sizes.batch * numbers * NUMBER_BYTES[dtype]}


def _no_adapters(sizes: Sizes, numbers: int, dtype: str) -> dict[str, Any]:
    return {"adapter_bytes": 0, "stack_bytes": 0}


def _as_many_adapters(sizes: Sizes, numbers: int, dtype: str) -> dict[str, Any]:
    """Room for those of one batch and no more."""
    return {"adapter_bytes": sizes.batch * numbers * NUMBER_BYTES[dtype]}


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
        unit=TOKENS_PER_S,
        compare=Compare.RATE,
        measure=measures.one_stream,
        dtypes=("bfloat16",),
        runs=7,
        peers=(*TRANSFORMERS, ("llama.cpp", "BF16")),
        goals=(Goal("transformers/bfloat16", pure=2.2), Goal("llama.cpp", native=1.0, aim=1.2)),
    ),
    Row(
        name="int8",
        title="one stream, int8",
        unit=TOKENS_PER_S,
        compare=Compare.RATE,
        measure=measures.one_stream,
        dtypes=("int8",),
        runs=7,
        peers=(("llama.cpp", "Q8_0"),),
        goals=(Goal("llama.cpp", pure=0.6, native=1.0, aim=1.5),),
    ),
    Row(
        name="batch32",
        title="batch 32, decode",
        unit=TOKENS_PER_S,
        compare=Compare.RATE,
        measure=measures.batch,
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
        unit=TOKENS_PER_S,
        compare=Compare.RATE,
        measure=measures.ragged,
        dtypes=BOTH,
        runs=3,
        peers=(*VLLM, *TRANSFORMERS, ("llama.cpp", "BF16")),
        goals=(Goal("vllm", pure=1.0, native=1.3, aim=2.0), Goal("transformers", pure=4.0, native=5.0)),
        streams=lambda sizes: sizes.ragged,
        padded_batch=16,
        engine=_whole_crowd,
    ),
    Row(
        name="adapters",
        title="32 adapters of rank 16, batch 32, decode",
        own="own base only, tok/s",
        shown="mixed",
        unit=TOKENS_PER_S,
        compare=Compare.SHARE,
        measure=measures.adapters,
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
        measure=measures.many_adapters,
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
        unit=MS,
        compare=Compare.TIME,
        measure=measures.prefill,
        dtypes=BOTH,
        runs=9,
        peers=(*TRANSFORMERS, ("llama.cpp", "BF16")),
        goals=(Goal("transformers", pure=1.25, native=1.4, aim=2.0),),
        engine=_long_steps,
    ),
    Row(
        name="interactive",
        title="first token while 64 batch requests run, p95",
        own="own idle, median ms",
        shown="busy_p95",
        unit=MS,
        compare=Compare.LIMIT,
        measure=measures.interactive,
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
        measure=measures.memory,
        dtypes=(*BOTH, "int8"),
        runs=1,
        goals=(Goal("own", pure=0.1, native=0.1),),
        streams=lambda sizes: sizes.batch,
        engine=_no_adapters,
    ),
    Row(
        name="memory_adapters",
        title="resident memory with 32 adapters of rank 16",
        own="stated, MiB",
        shown="resident",
        unit=MIB,
        compare=Compare.NEAR,
        measure=measures.memory,
        dtypes=BOTH,
        runs=1,
        goals=(Goal("own", pure=0.1, native=0.1),),
        streams=lambda sizes: sizes.batch,
        adapters=lambda sizes: sizes.batch,
        engine=_as_many_adapters,
    ),
)
