"""Whether the demo's fine-tune changes the model, and for the better: `python -m benchmarks.finetuning [FOLDER]`.

For each seed the demo's recipe is trained on the demo's data by `python -m inference train`, in a process of its own. Then base and result
read the 48 examples that no run was trained on: the loss of a token that is to be learned, of both; its difference, with a 95%
interval from drawing the same examples for both again and again (`inference.intervals`); how many greedy answers have the form that is
taught; and how far the logits of the saved adapter are from PEFT's. All of that in float32; what trains says its own precision.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import machine
from inference import Engine, SamplingParams
from inference.attention import CausalAttention
from inference.batching import pack
from inference.checkpoint import load_gpt
from inference.datasets import load_examples
from inference.examples import Example
from inference.intervals import Interval, difference
from inference.lora import Adapter
from inference.lora_batch import LoraBatch
from inference.model import GPT
from inference.tokenizer import Tokenizer

SMOLLM2 = machine.ROOT / "var" / "cache" / "models" / "smollm2"
GLOSSARY = machine.ROOT / "store" / "pages" / "demo" / "glossary"
FORM = re.compile(r"\*\*[^*\n]+\*\*\n[^\n]+\nExample: [^\n]+\nSee also: [^,\n]+, [^,\n]+\s*")
ANSWER_TOKENS = 96  # the longest card has fewer

Scored = list[tuple[float, float]]  # of each example, the sum of its learned tokens' losses, and how many they are


@dataclass(frozen=True)
class Outcome:
    """What one seed came to. Losses are of a token; `change` is the result's less the base's, so below zero is better."""

    seed: int
    base_loss: float
    loss: float
    change: float
    interval: Interval
    better: int  # examples whose own loss is less than the base's
    examples: int
    said: list[str]  # greedy answers to the questions of the first held-out examples
    furthest_logit: float  # from PEFT's, on `compared` examples
    compared: int
    run: dict[str, Any]  # what the training itself said

    @property
    def is_certain(self) -> bool:
        return self.interval.high < 0 or self.interval.low > 0

    def row(self) -> str:
        speed = self.run["tokens"] / self.run["seconds"]
        return (
            f"| {self.seed} | {self.base_loss:.3f} | {self.loss:.3f} | {self.change:+.3f} "
            f"| {self.interval.low:+.3f} to {self.interval.high:+.3f} | {self.better} of {self.examples} "
            f"| {in_form(self.said)} of {len(self.said)} | {self.furthest_logit:.1e} | {speed:.0f} |"
        )


HEAD = """\
| seed | base's loss | result's loss | change | 95% interval | better examples | answers in the form | furthest logit from PEFT | tokens/s |
|---|---|---|---|---|---|---|---|---|"""


@dataclass(frozen=True)
class Bench:
    folder: Path
    data: Path
    recipe: dict[str, Any]
    held_out: list[Example]
    questions: list[str]
    compared: int
    threads: int

    def train(self, seed: int, out: Path) -> dict[str, Any]:
        """As on the command line; what it says at its end. `out` is the adapter's folder then."""
        options = [part for name, value in {**self.recipe, "seed": seed}.items() for part in (f"--{name.replace('_', '-')}", str(value))]
        command = [sys.executable, "-m", "inference", "train", str(self.folder), str(self.data), str(out), *options]
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.threads)}
        said = subprocess.run(command, cwd=machine.ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
        found: dict[str, Any] = json.loads(said.splitlines()[-1])
        return found

    def outcome(self, seed: int, model: GPT, base: Scored, adapter: Path, run: dict[str, Any]) -> Outcome:
        lora = LoraBatch.for_all(Adapter.load(adapter, model.config))
        found = scored(model, self.held_out, lora)
        return Outcome(
            seed=seed,
            base_loss=loss_of_a_token(base),
            loss=loss_of_a_token(found),
            change=loss_of_a_token(found) - loss_of_a_token(base),
            interval=difference(found, base, lambda sums: sums[0] / sums[1]),
            better=sum(ours < theirs for (ours, _), (theirs, _) in zip(found, base, strict=True)),
            examples=len(found),
            said=answers(self.folder, self.questions, adapter),
            furthest_logit=furthest_from_peft(self.folder, adapter, model, lora, self.held_out[: self.compared]),
            compared=min(self.compared, len(self.held_out)),
            run=run,
        )


def loss_of_a_token(scores: Scored) -> float:
    return sum(loss for loss, _ in scores) / sum(count for _, count in scores)


@torch.no_grad()
def scored(model: GPT, examples: Sequence[Example], lora: LoraBatch | None = None) -> Scored:
    found = []
    for example in examples:
        learned = pack([example])
        of_tokens = F.cross_entropy(logits(model, example.tokens, lora)[learned.rows].float(), learned.targets, reduction="none")
        found.append((float(of_tokens.double().sum()), float(len(of_tokens))))
    return found


@torch.no_grad()
def logits(model: GPT, tokens: Sequence[int], lora: LoraBatch | None) -> Tensor:
    """[tokens, vocabulary]"""
    hidden = model(torch.tensor(tokens), torch.arange(len(tokens)), CausalAttention([len(tokens)]), lora)
    return model.logits(hidden)


@torch.no_grad()
def furthest_from_peft(folder: Path, adapter: Path, model: GPT, lora: LoraBatch, examples: Sequence[Example]) -> float:
    import peft
    import transformers

    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    theirs = peft.PeftModel.from_pretrained(theirs, adapter).eval()
    found = ((logits(model, e.tokens, lora) - theirs(torch.tensor([e.tokens])).logits[0]).abs().max() for e in examples)
    return max(map(float, found))


def answers(folder: Path, questions: Sequence[str], adapter: Path | None) -> list[str]:
    tokenizer = Tokenizer.from_folder(folder)
    prompts = [tokenizer.render([{"role": "user", "content": question}]) for question in questions]
    with Engine.load(folder, dtype="float32") as engine:
        outputs = engine.generate(prompts, SamplingParams(temperature=0, max_tokens=ANSWER_TOKENS), [adapter] * len(prompts))
    return [output.text for output in outputs]


def in_form(texts: Sequence[str]) -> int:
    return sum(FORM.fullmatch(text) is not None for text in texts)


def questions_of(path: Path, count: int) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()[:count]
    return [json.loads(line)["messages"][0]["content"] for line in lines]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.finetuning", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=SMOLLM2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data", type=Path, default=GLOSSARY / "cards.jsonl")
    parser.add_argument("--held-out", type=Path, default=GLOSSARY / "held_out.jsonl")
    parser.add_argument("--recipe", type=Path, default=GLOSSARY / "recipe.json")
    parser.add_argument("--answers", type=int, default=8, help="questions of the held-out examples that are answered, by base and result")
    parser.add_argument("--compared", type=int, default=8, help="held-out examples whose logits are compared with PEFT's")
    parser.add_argument("--json", type=Path, help="write everything here, anew after each seed")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    recipe = json.loads(options.recipe.read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_folder(options.folder)
    held_out = load_examples(options.held_out, tokenizer, max_length=recipe["max_length"])
    questions = questions_of(options.held_out, options.answers)
    bench = Bench(options.folder, options.data, recipe, held_out, questions, compared=options.compared, threads=options.threads)
    described = machine.describe()
    print(machine.in_words(described))
    print(f"{options.folder.name}, {options.data.name}, {len(held_out)} held-out examples, {options.threads} threads, {json.dumps(recipe)}")
    model = load_gpt(options.folder, dtype=torch.float32)
    base = scored(model, held_out)
    outcomes: list[Outcome] = []
    said = answers(options.folder, questions, None)
    with tempfile.TemporaryDirectory(prefix="finetuning-") as work:
        for seed in options.seeds:
            adapter = Path(work) / f"seed-{seed}"
            outcomes.append(bench.outcome(seed, model, base, adapter, bench.train(seed, adapter)))
            if options.json:
                facts = {"machine": described, "recipe": recipe, "outcomes": [asdict(outcome) for outcome in outcomes]}
                options.json.write_text(json.dumps(facts, indent=1), encoding="utf-8")
    print("", HEAD, *(outcome.row() for outcome in outcomes), sep="\n")
    certain = sum(outcome.is_certain for outcome in outcomes)
    print(f"\nThe interval excludes 0 for {certain} of {len(outcomes)} seeds.")
    print(f"Of the base's own answers {in_form(said)} of {len(said)} have the form.")
    for question, before, after in zip(questions[:1], said, outcomes[-1].said, strict=False):
        print(f"\n{question}\n\nthe base:\n{before}\n\nthe result of the last seed:\n{after}")


if __name__ == "__main__":
    main()
