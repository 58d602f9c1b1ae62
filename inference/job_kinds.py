"""What each kind of job does with its inputs, inside the job's own process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from inference import adapters, checks, datasets
from inference.artifacts import ArtifactError, ArtifactMissing, ArtifactStore, ArtifactUnreachable
from inference.checkpoint import CheckpointError, load_gpt
from inference.config import GPTConfig, UnsupportedModel
from inference.job_process import Channel, JobError, Order
from inference.protocol import JobKind
from inference.tokenizer import Tokenizer
from inference.training import BadSettings, Run, Settings

REPORT_EVERY_S = 2.0
MEMORY_OVER_WEIGHTS = 1.5  # weights in float32, and what a step of training needs beside them


@dataclass(frozen=True)
class Inputs:
    """The artifact store as a job sees it; every failure is a reason for the job's owner."""

    store: ArtifactStore
    cache: Path
    channel: Channel

    def artifact(self, digest: str) -> Path:
        return self._get("artifact", lambda: self.store.materialise(digest, self.cache))

    def blob(self, sha256: str) -> Path:
        return self._get("file", lambda: self.store.fetch(sha256, self.cache))

    def _get(self, what: str, fetch: Callable[[], Path]) -> Path:
        self.channel.progress("fetch", what=what)
        try:
            return fetch()
        except ArtifactError as error:
            retriable = isinstance(error, ArtifactMissing | ArtifactUnreachable)
            raise JobError("artifact_unavailable", f"The {what} could not be read: {error}", retriable=retriable) from error


def run(order: Order, channel: Channel, *, work: Path) -> dict[str, Any]:
    """The job's result. Raises JobError, and Paused or Cancelled through the channel."""
    torch.set_num_threads(1)
    job = order.job
    inputs = Inputs(ArtifactStore(order.artifacts), Path(order.cache), channel)
    try:
        match job.kind:
            case JobKind.VALIDATION:
                return _validate(job.params, inputs)
            case JobKind.FINETUNE:
                return _finetune(order, inputs, work)
            case JobKind.CHECK:
                return checks.run(job.params, inputs)
    except (CheckpointError, UnsupportedModel) as error:
        raise JobError("base_unusable", f"The base cannot be used: {error}") from error
    raise JobError("unknown_kind", f"This worker knows no job of the kind {job.kind!r}. Update the worker.")


class _Reporting:
    """A tokenizer that says from time to time that work goes on."""

    def __init__(self, tokenizer: Tokenizer, channel: Channel) -> None:
        self._tokenizer = tokenizer
        self._channel = channel
        self._said_at = 0.0
        self._examples = 0

    @property
    def eos_ids(self) -> frozenset[int]:
        return self._tokenizer.eos_ids

    def render(self, messages: list[dict[str, str]], add_generation_prompt: bool = True) -> list[int]:
        self._examples += add_generation_prompt
        if time.monotonic() - self._said_at > REPORT_EVERY_S:
            self._said_at = time.monotonic()
            self._channel.progress("read", examples=self._examples)
        return self._tokenizer.render(messages, add_generation_prompt=add_generation_prompt)

    def decode(self, tokens: list[int]) -> str:
        return self._tokenizer.decode(tokens)


def _validate(params: dict[str, Any], inputs: Inputs) -> dict[str, Any]:
    base = inputs.artifact(params["base"])
    tokenizer = _Reporting(Tokenizer.from_folder(base), inputs.channel)
    limit = min(int(params["max_length"]), GPTConfig.from_folder(base).context_length)
    return datasets.validate(inputs.blob(params["file"]), tokenizer, max_length=limit).to_json()


def _finetune(order: Order, inputs: Inputs, work: Path) -> dict[str, Any]:
    job, channel = order.job, inputs.channel
    if job.params.get("adapter"):
        raise JobError("adapter_on_adapter", "An adapter can be trained on full weights only. Choose the adapter's base.")
    try:
        settings = Settings.from_json(job.params["settings"])
    except (BadSettings, TypeError) as error:
        raise JobError("bad_settings", f"The settings cannot be used: {error}.") from error
    base = inputs.artifact(job.params["base"])
    config = GPTConfig.from_folder(base)
    needed = int(config.parameter_count * 4 * MEMORY_OVER_WEIGHTS)
    if order.memory_bytes and needed > order.memory_bytes:
        raise JobError("base_too_large", f"Training needs about {needed >> 20} MB; this worker may use {order.memory_bytes >> 20} MB.")
    examples = _examples(inputs, base, job.params["file"], limit=min(settings.max_length, config.context_length))
    channel.progress("load", what="base")
    training = Run(load_gpt(base, dtype=torch.float32), examples, settings)
    if job.checkpoint:
        training.load(inputs.artifact(job.checkpoint))
    _train(training, order, inputs, work)
    channel.progress("save", done=1.0)
    folder = work / "adapter"
    adapters.save(training.parts, folder, settings=settings, base=job.params["base"], config=config)
    manifest = inputs.store.put_folder(folder)
    progress = training.progress
    return {
        "manifest": manifest.digest,
        "size_bytes": manifest.size_bytes,
        "steps": progress.step,
        "tokens": progress.tokens,
        "train_loss": progress.loss,
        "validation_loss": progress.validation_loss,
        "base_validation_loss": progress.base_validation_loss,
        "examples": len(training.training),
        "validation_examples": len(training.validation),
        "settings": asdict(settings),
    }


def _examples(inputs: Inputs, base: Path, file: str, *, limit: int) -> Sequence[datasets.Example]:
    tokenizer = _Reporting(Tokenizer.from_folder(base), inputs.channel)
    try:
        return datasets.load_examples(inputs.blob(file), tokenizer, max_length=limit)
    except datasets.UnusableDataset as error:
        raise JobError("data_unusable", f"The file cannot be trained on: {error}") from error


def _train(training: Run, order: Order, inputs: Inputs, work: Path) -> None:
    """Segment after segment of about `order.segment_s` seconds, each offered to the store before the next begins."""
    number = order.job.segment
    while not training.is_over:
        events = _segment(training, order.segment_s, inputs.channel)
        if measured := training.validate():
            events.append(measured)
        folder = work / f"checkpoint-{number}"
        folder.mkdir()
        training.save(folder)
        checkpoint = inputs.store.put_folder(folder).digest
        inputs.channel.segment(number=number, checkpoint=checkpoint, events=events, done=training.progress.step / training.total_steps)
        number += 1


def _segment(training: Run, segment_s: float, channel: Channel) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    if training.progress.step == 0 and (measured := training.validate()):
        events.append(measured)
    ends_at, said_at = time.monotonic() + segment_s, 0.0
    while not training.is_over and time.monotonic() < ends_at and not channel.pausing:
        channel.raise_if_cancelled()
        try:
            events.append(training.advance())
        except FloatingPointError as error:
            raise JobError("diverged", f"Training came to nothing: {error}.") from error
        if time.monotonic() - said_at > REPORT_EVERY_S / 4:
            said_at = time.monotonic()
            done = training.progress.step / training.total_steps
            channel.progress("train", done=done, total_steps=training.total_steps, **events[-1])
    return events
