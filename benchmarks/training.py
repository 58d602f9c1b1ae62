"""The benchmark of training: this project's loop beside PEFT and transformers' Trainer, same model, examples, batches and losses.

    python -m benchmarks.training                              # LoRA r=16, all weights of SmolLM2-135M-Instruct, a model from nothing
    python -m benchmarks.training --rows lora --rounds 5 --json var/benchmarks/training.json
    python -m benchmarks.training FOLDER --quick               # whether everything works; its figures mean nothing

As in `benchmarks.core` the sides take turns, each a process of its own that is stopped while it is not its turn, and ratios are taken
within each round, which all begin with the same weights. A side whose losses are not ours, step by step, is reported and not compared.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from benchmarks import machine
from benchmarks.sides import Child, Program, Side, SideFailed
from benchmarks.workload import TEXT, Prompts, text_tokens
from inference import pretraining
from inference.batching import batch
from inference.checkpoint import SINGLE, load_gpt
from inference.pretraining import Shape
from inference.recipe import Recipe
from inference.trainable import TrainableLora

SMOLLM2 = machine.ROOT / "var" / "cache" / "models" / "smollm2"
OURS, THEIRS = Program("benchmarks.peers.ours_training"), Program("benchmarks.peers.trainer")
GIB = 2**30
NEAR = {"float32": 2e-3, "bfloat16": 5e-2}  # how far a step's loss may be from ours


@dataclass(frozen=True)
class Row:
    name: str
    title: str
    settings: dict[str, Any]
    shape: Shape | None = None  # of a model that has learned nothing; None: the one that is given


ROWS = (
    Row("lora", "LoRA, rank 16, beside all seven linears", {"rank": 16, "alpha": 32.0, "learning_rate": 2e-4}),
    Row("weights", "all weights", {"scope": "weights", "learning_rate": 1e-5}),
    Row("pretraining", "a model from nothing", {"scope": "weights", "learning_rate": 1e-3}, Shape(layers=8)),
)


@dataclass
class Measured:
    seconds: list[float] = field(default_factory=list)
    processor_s: list[float] = field(default_factory=list)  # of all threads
    losses: list[list[float]] = field(default_factory=list)
    peak_bytes: int = 0


@dataclass(frozen=True)
class Bench:
    folder: Path
    batch: int
    length: int
    steps: int
    rounds: int
    threads: int
    micro_batch: int
    dtypes: list[str]
    theirs: list[str]

    @property
    def tokens(self) -> int:
        return self.batch * self.length * self.steps


def measure(row: Row, bench: Bench, scratch: Path) -> dict[str, Measured]:
    folder = bench.folder if row.shape is None else _begun(scratch / "begun", row.shape)
    prompts = Prompts(text_tokens(folder))
    settings = {**row.settings, "epochs": 1, "batch_size": bench.batch, "max_length": bench.length, "validation_share": 0.0}
    recipe = Recipe.from_json(settings)
    adapter = _start(row, recipe, folder, scratch)
    shared = {"folder": str(folder), "threads": bench.threads}
    found: dict[str, Measured] = {}
    children: dict[str, Child] = {}
    try:
        for dtype in bench.dtypes:
            children[f"ours, {dtype}"] = Child(Side(f"ours-{row.name}", dtype), OURS, {**shared, "dtype": dtype})
        name = "PEFT + Trainer" if adapter else "Trainer"
        for dtype in bench.theirs:
            autocast = dtype == "bfloat16"
            options = {**shared, "adapter": adapter, "autocast": autocast, "micro_batch": bench.micro_batch}
            title = f"{name}, {'bfloat16 autocast' if autocast else dtype}"
            children[title] = Child(Side(f"trainer-{row.name}", dtype), THEIRS, options)
        for number in range(bench.rounds):
            examples = prompts.take(bench.batch * bench.steps, bench.length)
            in_order = [examples[at] for step in range(bench.steps) for at in batch(len(examples), recipe, step)]
            order = list(children)
            for title in order[number % len(order) :] + order[: number % len(order)]:
                child = children[title]
                child.ask("ready", settings=settings, examples=examples if title.startswith("ours") else in_order)
                before_s = _processor_s(child.pid)
                answer = child.ask("train")
                measured = found.setdefault(title, Measured())
                measured.seconds.append(answer["seconds"])
                measured.processor_s.append(_processor_s(child.pid) - before_s)
                measured.losses.append(answer["value"]["losses"])
                measured.peak_bytes = _peak_bytes(child.pid)
                print(f"  {title}: {bench.tokens / answer['seconds']:.0f} tokens/s", flush=True)
    finally:
        for child in children.values():
            child.close()
    return {title: found[title] for title in children}


def _start(row: Row, recipe: Recipe, folder: Path, scratch: Path) -> str:
    """A PEFT folder of the adapter that ours begins with; empty where all weights are trained."""
    if row.name != "lora":
        return ""
    import torch

    lora = TrainableLora(load_gpt(folder, dtype=torch.float32), recipe)
    lora.save(scratch / "start", lora.weights(), base="", source=folder)
    return str(scratch / "start")


def _begun(folder: Path, shape: Shape) -> Path:
    """Of weights that are the same in either precision."""
    pretraining.begin(folder, TEXT, shape, seed=1)
    weights = {name: weight.bfloat16() for name, weight in load_file(folder / SINGLE).items()}
    save_file(weights, folder / SINGLE, metadata={"format": "pt"})
    return folder


def _processor_s(pid: int) -> float:
    """What the process has computed so far: of a machine that others use too, it tells more than the clock."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # of the user and of the system


def _peak_bytes(pid: int) -> int:
    """The most the process has held in memory so far, loading included."""
    lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return next(int(line[1]) * 1024 for line in lines if line and line[0] == "VmHWM:")


def table(found: dict[str, Measured], bench: Bench) -> str:
    ours = found[f"ours, {bench.dtypes[0]}"]
    head = ("side", "tokens/s", "ours is faster by", "in processor time", "peak, GiB", "ours takes of it", "furthest loss")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for title, measured in found.items():
        rate = bench.tokens / statistics.median(measured.seconds)
        by_clock, by_processor = (_ratio(measured.seconds, ours.seconds), _ratio(measured.processor_s, ours.processor_s))
        memory = f"{measured.peak_bytes / GIB:.2f} | {ours.peak_bytes / measured.peak_bytes:.2f}"
        apart = _apart(measured, ours)
        allowed = NEAR["bfloat16" if "bfloat16" in title or bench.dtypes[0] == "bfloat16" else "float32"]
        said = f"{by_clock:.2f} | {by_processor:.2f}" if apart <= allowed else "not compared | "
        lines.append(f"| {title} | {rate:.0f} | {said} | {memory} | {apart:.4f} |")
    return "\n".join(lines)


def _ratio(theirs: Sequence[float], ours: Sequence[float]) -> float:
    return statistics.median(one / other for one, other in zip(theirs, ours, strict=True))


def by_step(found: dict[str, Measured]) -> str:
    """The losses of the first round, one step in each line."""
    lines = [f"| step | {' | '.join(found)} |", f"|---|{'---|' * len(found)}"]
    for number, losses in enumerate(zip(*(measured.losses[0] for measured in found.values()), strict=False), 1):
        lines.append(f"| {number} | {' | '.join(f'{loss:.4f}' for loss in losses)} |")
    return "\n".join(lines)


def _apart(one: Measured, other: Measured) -> float:
    """The largest difference of a step's loss; endless where the steps are not as many."""
    pairs = [pair for a, b in zip(one.losses, other.losses, strict=True) for pair in zip(a, b, strict=False)]
    if any(len(a) != len(b) for a, b in zip(one.losses, other.losses, strict=True)):
        return float("inf")
    return max(abs(a - b) for a, b in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=SMOLLM2)
    parser.add_argument("--rows", nargs="+", choices=[row.name for row in ROWS], default=[row.name for row in ROWS])
    parser.add_argument("--batch", type=int, default=8, help="sequences of a step")
    parser.add_argument("--length", type=int, default=512, help="tokens of a sequence")
    parser.add_argument("--steps", type=int, default=4, help="of each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--micro-batch", type=int, default=0, help="of the Trainer, which accumulates; default: the whole step at once")
    parser.add_argument("--dtypes", nargs="+", choices=["float32", "bfloat16"], default=["float32"], help="of our base's matrices")
    parser.add_argument("--theirs", nargs="+", choices=["float32", "bfloat16"], default=["bfloat16", "float32"], help="of the Trainer")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--quick", action="store_true", help="small work, to see whether everything works")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Stopped."))  # so that the sides are ended too
    if options.quick:
        options.batch, options.length, options.steps, options.rounds = 2, 48, 2, 2
    sizes = {name: getattr(options, name) for name in ("batch", "length", "steps", "rounds", "threads", "micro_batch", "dtypes", "theirs")}
    bench = Bench(options.folder.resolve(), **sizes)
    described = machine.describe()
    print(f"On {machine.in_words(described)}")
    print(f"{bench.steps} steps of {bench.batch} sequences of {bench.length} tokens, {bench.rounds} rounds, {bench.threads} threads\n")
    kept = {}
    for row in (row for row in ROWS if row.name in options.rows):
        print(row.title)
        with tempfile.TemporaryDirectory() as scratch:
            try:
                found = measure(row, bench, Path(scratch))
            except SideFailed as error:
                raise SystemExit(f"{row.name}: {error}") from error
        print(f"\n{table(found, bench)}\n\n{by_step(found)}\n")
        kept[row.name] = {
            title: {"seconds": m.seconds, "processor_s": m.processor_s, "losses": m.losses, "peak_bytes": m.peak_bytes}
            for title, m in found.items()
        }
        if options.json:
            options.json.write_text(json.dumps({"machine": described, "tokens": bench.tokens, "rows": kept}, indent=2) + "\n")


if __name__ == "__main__":
    main()
