"""What single parts of the engine gain: `python -m benchmarks.parts var/cache/models/smollm2`.

Each part with and without, in turn, in one process: choosing tokens by top_p from the most probable ones instead of whole sorted rows; the
prefix cache; few tokens of batches in a step that people wait for. Prompts are this project's own English text.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor

from benchmarks.peers.ours import check_native
from benchmarks.workload import Prompts, text_tokens
from inference import sampling
from inference.engine import EngineCore
from inference.engine_options import EngineOptions
from inference.protocol import Delta, GenerationRequest, Priority
from inference.sampling import Choice, Sampler
from inference.sampling_params import SamplingParams

ROWS = 32  # of which tokens are chosen at once
PREFIX, OWN = 512, 64  # tokens of a prompt that were read before, and behind them
BATCH, ANSWER = 16, 32  # requests of batches that run beside a stream, and its tokens


class Bench:
    def __init__(self, folder: Path, *, dtype: str, runs: int) -> None:
        self._folder, self._dtype, self.runs = folder, dtype, runs
        self.prompts = Prompts(text_tokens(folder))
        self._asked = 0

    def engine(self, **options: int) -> EngineCore:
        return EngineCore.load(self._folder, EngineOptions(dtype=self._dtype, lookahead=0, **options))

    def request(
        self, prompt: list[int], *, max_tokens: int, priority: Priority = Priority.INTERACTIVE, **params: float
    ) -> GenerationRequest:
        self._asked += 1
        return GenerationRequest(
            id=f"req_{self._asked}",
            base="benchmark",
            version="version",
            tenant="",
            messages=[],
            prompt_tokens=prompt,
            sampling=SamplingParams(max_tokens=max_tokens, ignore_eos=True, **{"temperature": 0.0} | params).to_json(),
            deadline=time.time() + 3600,
            priority=priority,
        )

    def in_turn(self, sides: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
        """What each side measures, run by run."""
        found: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(self.runs):
            for name, measure in sides.items():
                found[name].append(measure())
        return found


def choosing(bench: Bench) -> dict[str, list[float]]:
    """Milliseconds to choose a token for each of ROWS answers, from logits that a model computed in the midst of such answers."""
    logits = logits_of(bench)

    def choose(**params: float) -> float:
        choices = [Choice(SamplingParams(**params), seed) for seed in range(ROWS)]
        sampler = Sampler()
        sampler.choose(logits, choices)  # what stays the same from token to token is made once
        for choice in choices:
            choice.count += 1
        return milliseconds(lambda: sampler.choose(logits, choices))

    def choose_sorted(order: Callable[[Tensor], Tensor]) -> float:
        whole = mock.patch.object(sampling, "_cuts", lambda shares, top_k, top_p: sampling._cuts_among(order(shares), top_k, top_p))
        with whole:
            return choose(temperature=0.7, top_p=0.9)

    return bench.in_turn(
        {
            "top_p 0.9 at temperature 0.7 of the most probable": lambda: choose(temperature=0.7, top_p=0.9),
            "the same of rows sorted by numpy": lambda: choose_sorted(sampling._sorted),
            "the same of rows sorted by torch": lambda: choose_sorted(lambda shares: shares.sort(dim=-1, descending=True).values),
            "temperature 0.7 alone": lambda: choose(temperature=0.7),
            "greedy": lambda: choose(temperature=0.0),
        }
    )


def logits_of(bench: Bench) -> Tensor:
    """float32 [ROWS, vocabulary]"""
    engine, kept = bench.engine(max_batch_tokens=64 * ROWS), []
    for prompt in bench.prompts.take(ROWS, 64):
        engine.submit(bench.request(prompt, max_tokens=16, temperature=0.7))
    chosen = Sampler.choose

    def keep(sampler: Sampler, logits: Tensor, choices: list[Choice]) -> list[int | None]:
        if len(logits) == ROWS:
            kept.append(logits.clone())
        return chosen(sampler, logits, choices)

    with mock.patch.object(Sampler, "choose", keep), torch.inference_mode():
        while engine.has_work:
            engine.step()
    engine.close()
    return kept[-1]


def prefix(bench: Bench) -> dict[str, list[float]]:
    """Milliseconds to the first token of a prompt of which PREFIX tokens were read before, or none."""
    engine = bench.engine()
    read, own = bench.prompts.one(PREFIX), bench.prompts.one
    first_token(engine, bench.request([*read, *own(OWN)], max_tokens=1))
    return bench.in_turn(
        {
            "prefix read before": lambda: first_token(engine, bench.request([*read, *own(OWN)], max_tokens=1)),
            "nothing read before": lambda: first_token(engine, bench.request(own(PREFIX + OWN), max_tokens=1)),
        }
    )


def beside(bench: Bench) -> dict[str, list[float]]:
    """Milliseconds for a token of a stream beside BATCH requests of batches, with few of their tokens in its steps and with all."""
    engines = {"2 tokens of batches in a step": bench.engine(), "all of them": bench.engine(batch_beside=128)}
    alone = bench.engine()
    for engine in engines.values():
        for prompt in bench.prompts.take(BATCH, 64):
            engine.submit(bench.request(prompt, max_tokens=1500, priority=Priority.BATCH))
        for _ in range(BATCH):  # until all of them answer
            engine.step()
    sides = {name: (lambda engine=engine: token_ms(bench, engine)) for name, engine in engines.items()}
    return bench.in_turn(sides | {"nothing beside it": lambda: token_ms(bench, alone)})


def token_ms(bench: Bench, engine: EngineCore) -> float:
    request = bench.request(bench.prompts.one(64), max_tokens=ANSWER)
    first_token(engine, request)
    return milliseconds(lambda: until(engine, request, ANSWER)) / (ANSWER - 1)


def first_token(engine: EngineCore, request: GenerationRequest) -> float:
    engine.submit(request)
    return milliseconds(lambda: until(engine, request, 1))


def until(engine: EngineCore, request: GenerationRequest, tokens: int) -> None:
    """Steps until the request's answer has so many, or has ended."""
    while engine.has_work:
        for id_, event in engine.step():
            if id_ == request.id and (not isinstance(event, Delta) or event.tokens >= tokens) and event.type != "started":
                return


def milliseconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return (time.perf_counter() - began) * 1000


PARTS = {"choosing": choosing, "prefix": prefix, "beside": beside}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    check_native(wanted=os.environ.get("INFERENCE_NATIVE") != "0")
    bench = Bench(options.folder, dtype=options.dtype, runs=options.runs)
    print(f"load {os.getloadavg()[0]:.1f}, {options.dtype}, {options.threads} thread(s), medians of {options.runs} runs in turn")
    for part in options.parts:
        found = PARTS[part](bench)
        print(f"{part}: {PARTS[part].__doc__}")
        first = next(iter(found.values()))
        for name, figures in found.items():
            ratio = statistics.median(one / other for one, other in zip(figures, first, strict=True))
            print(f"  {name:<52} {statistics.median(figures):8.2f} ms, {ratio:5.2f} times the first")


if __name__ == "__main__":
    main()
