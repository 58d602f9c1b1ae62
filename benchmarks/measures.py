"""What the rows of the table measure: one run of one side each.

A rate of decoding is what 1 + n tokens take longer than 1 token, for the same number of other prompts: reading the prompts
is in both and falls out, for every side in the same way and without looking into it.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from pathlib import Path

from benchmarks.sides import Child, SideFailed
from benchmarks.workload import Prompts, zipf

Sample = dict[str, float]  # "value" is what is compared


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


@dataclass(frozen=True)
class Work:
    """What a row has to work with."""

    prompts: Prompts
    sizes: Sizes
    adapters: list[Path]


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
    batch = work.sizes.batch
    _seconds(child, work.prompts.take(batch, work.sizes.prompt), work.sizes.together, work.adapters[:batch] or None)
    held = child.ask("memory")["value"]
    resident, stated = held["resident_bytes"], held["stated_bytes"]
    return {"value": resident / stated, "own": stated / 2**20, "resident": resident / 2**20}
