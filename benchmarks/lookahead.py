"""What guessing ahead gains a single stream: `python -m benchmarks.lookahead var/cache/models/smollm2`.

The same requests with and without, in turn, on this project's own English text: some repeat their prompt, some do not. Printed is the time
of a token behind the first one, of the processor and by the clock, and whether the answers are the same.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.peers.ours import check_native
from benchmarks.workload import TEXT
from inference.engine import EngineCore
from inference.engine_options import EngineOptions
from inference.protocol import Delta, Finished, GenerationRequest
from inference.sampling_params import SamplingParams

CHAT = (
    "What is the capital of France, and what is it known for?",
    "Write a short story about a lighthouse keeper.",
    "How do I bake bread at home?",
    "Explain why the sky is blue to a child.",
)


@dataclass(frozen=True)
class Run:
    text: str
    tokens: int
    processor_s: float  # behind the first token
    clock_s: float
    guessed: int
    guessed_right: int


def prompts() -> list[tuple[str, str]]:
    text = TEXT.read_text(encoding="utf-8")
    return [
        *(("summarise", f"Summarise this text in a few sentences:\n\n{text[at : at + 1800]}") for at in (0, 1800, 3600)),
        ("extract", f"Copy every sentence of this text that speaks of water:\n\n{text[:1800]}"),
        ("extract", f"Correct the spelling of this text and repeat it:\n\n{text[1800:2800]}"),
        *(("chat", text) for text in CHAT),
    ]


def answer(engine: EngineCore, number: int, prompt: str, sampling: SamplingParams) -> Run:
    before = engine.stats()
    request = GenerationRequest(
        id=f"req_{number}",
        base="benchmark",
        version=f"version_{number}",  # nothing is answered from the prefix cache
        tenant="",
        messages=[{"role": "user", "content": prompt}],
        sampling=sampling.to_json(),
        deadline=time.time() + 3600,
    )
    engine.submit(request)
    text, tokens, began = "", 0, (time.process_time(), time.perf_counter())
    while engine.has_work:
        for _, event in engine.step():
            if isinstance(event, Delta):
                began = began if text else (time.process_time(), time.perf_counter())
                text += event.text
            elif isinstance(event, Finished):
                tokens = event.usage["completion_tokens"]
    ended, after = (time.process_time(), time.perf_counter()), engine.stats()
    guessed, right = (after[name] - before[name] for name in ("guessed", "guessed_right"))
    return Run(text, tokens - 1, ended[0] - began[0], ended[1] - began[1], guessed, right)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--most", type=int, nargs="+", default=[0, 8], help="tokens guessed at once, in turn")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    check_native(wanted=os.environ.get("INFERENCE_NATIVE") != "0")
    engines = {most: EngineCore.load(options.folder, EngineOptions(dtype=options.dtype, lookahead=most)) for most in options.most}
    print(f"load {os.getloadavg()[0]:.1f}, {options.dtype}, {options.threads} thread(s)")
    for temperature in (0.0, 0.7):
        runs: dict[tuple[str, int], list[Run]] = defaultdict(list)
        sampling = SamplingParams(max_tokens=options.max_tokens, temperature=temperature, seed=5)
        different = 0
        for number, (kind, prompt) in enumerate(prompts()):
            found = {most: answer(engine, number, prompt, sampling) for most, engine in engines.items()}
            different += len({run.text for run in found.values()}) > 1
            for most, run in found.items():
                runs[kind, most].append(run)
        print(f"temperature {temperature}: {different} of {number + 1} answers differ")
        for (kind, most), of_kind in runs.items():
            tokens = sum(run.tokens for run in of_kind)
            processor, clock = (1000 * sum(each) / tokens for each in zip(*((r.processor_s, r.clock_s) for r in of_kind), strict=True))
            right = f"{sum(run.guessed_right for run in of_kind)} of {sum(run.guessed for run in of_kind)} guesses right"
            print(f"  {kind:<10} {most}: {processor:6.2f} ms of the processor, {clock:6.2f} ms a token; {right}")


if __name__ == "__main__":
    main()
