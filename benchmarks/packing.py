"""What packing gains in training: `python -m benchmarks.packing [FOLDER]`, by default of the packaged SmolLM2-135M-Instruct.

The same examples, by the same loop and to the same losses, three times in turn: packed as `inference.batching` does, padded to the longest
of each batch as they come, and padded after sorting by length. What padding adds is computed and thrown away, so without any cost of
its own packing would win as much time as there are more padded than real tokens; 0.9 of that is asked for.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks import machine
from benchmarks.workload import Prompts, text_tokens
from inference.checkpoint import load_gpt
from inference.examples import Example
from inference.model import GPT
from inference.objectives import Supervised
from inference.recipe import Recipe
from inference.trainable import TrainableLora

SMOLLM2 = machine.ROOT / "var" / "cache" / "models" / "smollm2"
MEDIAN, SPREAD = 120, 0.8  # of the lengths' logarithm: many short examples and a long tail, as conversations have
SHORTEST, LONGEST = 16, 512
WANTED = 0.9  # of the ratio of padded to real tokens
PACKED, PADDED, SORTED = "packed", "padded as they come", "padded after sorting"


def lengths(count: int, *, seed: int) -> list[int]:
    chooser = random.Random(seed)
    return [min(max(round(chooser.lognormvariate(0, SPREAD) * MEDIAN), SHORTEST), LONGEST) for _ in range(count)]


def padded(batch: Sequence[Example]) -> list[Example]:
    longest = max(len(example.tokens) for example in batch)
    short = [longest - len(example.tokens) for example in batch]
    return [Example((*it.tokens, *[0] * by), (*it.trained, *[0] * by)) for it, by in zip(batch, short, strict=True)]


def batches(examples: Sequence[Example], size: int) -> list[Sequence[Example]]:
    return [examples[at : at + size] for at in range(0, len(examples), size)]


def train(model: GPT, lora: TrainableLora, given: Sequence[Sequence[Example]]) -> tuple[float, float]:
    """(seconds, summed loss of all trained tokens) of every batch forward and back."""
    began, total = time.perf_counter(), 0.0
    for batch in given:
        trained = sum(sum(example.trained[1:]) for example in batch)
        for part in Supervised(model, lora, batch, []).parts(range(len(batch))):
            part.backward()
            total += part.item() * trained
        for parameter in lora.parameters():
            parameter.grad = None
    return time.perf_counter() - began, total


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.packing", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=SMOLLM2)
    parser.add_argument("--examples", type=int, default=96)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(machine.in_words(machine.describe()))
    prompts = Prompts(text_tokens(options.folder))
    examples = [Example(tuple(prompts.one(length)), (True,) * length) for length in lengths(options.examples, seed=1)]
    by_length = sorted(examples, key=lambda example: len(example.tokens))
    sides: dict[str, Sequence[Sequence[Example]]] = {
        PACKED: batches(examples, options.batch),
        PADDED: [padded(batch) for batch in batches(examples, options.batch)],
        SORTED: [padded(batch) for batch in batches(by_length, options.batch)],
    }
    model = load_gpt(options.folder, dtype=getattr(torch, options.dtype))
    lora = TrainableLora(model, Recipe(rank=16))
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    losses: dict[str, float] = {}
    train(model, lora, sides[PACKED][:1])  # warms up
    for number in range(options.rounds):
        order = list(sides)
        for name in order[number % 3 :] + order[: number % 3]:
            took, losses[name] = train(model, lora, sides[name])
            seconds[name].append(took)
    real = sum(len(example.tokens) for example in examples)
    if max(losses.values()) - min(losses.values()) > 1e-3 * real:
        raise SystemExit(f"The losses differ: {losses}")
    print(
        f"{len(examples)} examples of {SHORTEST} to {LONGEST} tokens in batches of {options.batch}, {real} tokens, {options.dtype}, ",
        end="",
    )
    print(f"LoRA r=16; a token's loss {losses[PACKED] / real:.4f} everywhere\n")
    print(f"| | tokens computed | kept of these | real tokens/s | time of packed | tokens of packed | share of these (wanted: {WANTED}) |")
    print("|---|---|---|---|---|---|---|")
    for name, given in sides.items():
        computed = sum(len(example.tokens) for batch in given for example in batch)
        slower = statistics.median(theirs / ours for theirs, ours in zip(seconds[name], seconds[PACKED], strict=True))
        rate = real / statistics.median(seconds[name])
        row = [f"{computed}", f"{real / computed:.2f}", f"{rate:.0f}", f"{slower:.2f}", f"{computed / real:.2f}"]
        print(f"| {name} | " + " | ".join([*row, f"{slower / (computed / real):.2f}"]) + " |")


if __name__ == "__main__":
    main()
