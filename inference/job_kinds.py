"""What each kind of job does. Every one returns its result as JSON values or raises the reason it ends with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from inference import brought, checks, datasets, evaluating, pretraining, training
from inference.config import GPTConfig
from inference.job_process import Channel, JobError, Order
from inference.protocol import JobKind, JobTask
from inference.tokenizer import Tokenizer
from inference.workbench import Workbench, explained

SAID_EVERY_LINES = 200


def run(order: Order, channel: Channel, *, work: Path) -> dict[str, Any]:
    """Raises JobError, Cancelled and Paused."""
    task = order.job
    bench = Workbench.of(order, channel, work)
    match task.kind:
        case JobKind.VALIDATION:
            return validate(task, bench)
        case JobKind.FINETUNE:
            return training.run(task, bench)
        case JobKind.PRETRAINING:
            return pretraining.run(task, bench)
        case JobKind.IMPORT:
            return brought.run(task, bench)
        case JobKind.CHECK:
            return checks.run(task, bench)
        case JobKind.EVALUATION:
            return evaluating.run(task, bench)
    raise JobError("kind_unknown", f"This worker knows no jobs of the kind {task.kind!r}; it may be older than the store.")


def validate(task: JobTask, bench: Workbench) -> dict[str, Any]:
    """Reads the whole file as the base's tokenizer and chat template see it, or as the tokenizer of the model it shall become does."""
    use, name = datasets.Use(task.params.get("use", "supervised")), task.params.get("name", "")
    if "shape" in task.params:
        path = bench.file(task.params["file"])
        base = pretraining.source_of(bench, path, pretraining.Shape.from_json(task.params["shape"]), name=name)
    else:
        base = bench.folder(task.params["base"])
        path = bench.file(task.params["file"])
    with explained():
        context_length = GPTConfig.from_folder(base).context_length
    tokenizer = _Watched(bench.tokenizer(base), bench)
    bench.channel.progress("validating", done=0.0)
    longest = min(int(task.params["max_length"]), context_length)
    of_run = {setting: task.params[setting] for setting in ("validation_share", "seed") if setting in task.params}
    return datasets.validate(path, tokenizer, max_length=longest, use=use, name=name, **of_run).to_json()


class _Watched:
    """A tokenizer that reports how many examples it was asked for, so that a long file is seen to be read."""

    def __init__(self, tokenizer: Tokenizer, bench: Workbench) -> None:
        self._tokenizer, self._bench, self._asked = tokenizer, bench, 0
        self.eos_ids, self.end_id = tokenizer.eos_ids, tokenizer.end_id

    def render(self, messages: list[dict[str, str]], add_generation_prompt: bool = True) -> list[int]:
        self._say()
        return self._tokenizer.render(messages, add_generation_prompt)

    def encode_plain(self, text: str) -> list[int]:
        self._say()
        return self._tokenizer.encode_plain(text)

    def _say(self) -> None:
        self._asked += 1
        if self._asked % SAID_EVERY_LINES == 0:
            self._bench.channel.progress("validating", rendered=self._asked)

    def decode(self, tokens: list[int]) -> str:
        return self._tokenizer.decode(tokens)
