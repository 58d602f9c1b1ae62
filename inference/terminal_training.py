"""Training from a terminal: the job's own loop, at a workbench without a store."""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from inference import pretraining
from inference.artifacts import ArtifactStore
from inference.checkpoint import load_gpt
from inference.given import WrongInput, folder_of
from inference.job_process import Channel
from inference.model import GPT
from inference.pretraining import Shape
from inference.processes import Processes, joined, shard
from inference.protocol import JobKind, JobTask
from inference.recipe import Recipe
from inference.training import RESULT
from inference.training import train as run_training
from inference.workbench import Workbench


class Terminal(Channel):
    """The job's side of a conversation with a person who only looks on. Of several processes the first speaks."""

    def __init__(self, processes: Processes) -> None:
        super().__init__(sys.stdin, sys.stderr)
        self._speaks = processes.is_first

    def progress(self, stage: str, *, done: float | None = None, **facts: Any) -> None:
        if not self._speaks:
            return
        events = facts.get("events") or [{}]
        said = [f"{name} {events[-1][name]:.4f}" for name in ("loss", "validation_loss") if name in events[-1]]
        place = f" {facts['step']}/{facts['steps']}" if "steps" in facts else ""
        print(f"{stage}{place}{': ' if said else ''}{', '.join(said)}", file=sys.stderr, flush=True)

    def segment(self, *, number: int, checkpoint: str, events: list[dict[str, Any]], done: float) -> None:
        """Nobody records it."""


@dataclass(frozen=True)
class Desk(Workbench):
    """A workbench without an artifact store: what is made stays in `work`, checkpoints in a folder of their own where one is named."""

    checkpoints: Path | None = None

    def model(self, base: Path, *, room_bytes: int = 0) -> GPT:
        """For several processes in float32, a part in each."""
        if self.processes.count == 1:
            return super().model(base, room_bytes=room_bytes)
        model = load_gpt(base, dtype=torch.float32, device=self.device)
        shard(model, self.processes)
        return model

    def put(self, folder: Path) -> str:
        return folder.name

    def last(self) -> str | None:
        """The last checkpoint."""
        numbers = [int(folder.name) for folder in self.checkpoints.iterdir() if folder.name.isdigit()] if self.checkpoints else []
        return str(max(numbers)) if numbers else None

    def folder(self, digest: str) -> Path:
        assert self.checkpoints is not None
        return self.checkpoints / digest

    def keep(self, write: Callable[[Path], None], *, number: int) -> str:
        """All processes write into one folder, which gets its name when it is whole."""
        if self.checkpoints is None:
            return ""
        begun = self.checkpoints / f".{number}"
        if self.processes.is_first:
            shutil.rmtree(begun, ignore_errors=True)
            begun.mkdir()
        self.processes.wait()
        write(begun)
        self.processes.wait()
        if self.processes.is_first:
            begun.rename(self.checkpoints / str(number))
        self.processes.wait()
        return str(number)

    def forget(self, digest: str, *, kept: str) -> None:
        if self.checkpoints is not None and self.processes.is_first:
            shutil.rmtree(self.checkpoints / digest)

    def clear(self) -> None:
        """Removes all checkpoints, also what a run that was killed had not finished or not yet removed."""
        for folder in self.checkpoints.iterdir() if self.checkpoints else ():
            if folder.name.removeprefix(".").isdigit():
                shutil.rmtree(folder)


def train(options: argparse.Namespace) -> None:
    recipe = Recipe.from_json(_chosen(options, Recipe))
    with _desk(options) as desk:
        _to_the_end(desk, options, JobKind.FINETUNE, recipe=recipe, source=folder_of(options.model), base=str(options.model))


def pretrain(options: argparse.Namespace) -> None:
    shape = Shape.from_json(_chosen(options, Shape))
    recipe = pretraining.recipe_of(_chosen(options, Recipe), shape)
    with _desk(options) as desk:
        source = pretraining.begin(desk.work / "begun", Path(options.data), shape, seed=recipe.seed)
        _to_the_end(desk, options, JobKind.PRETRAINING, recipe=recipe, source=source)


def _chosen(options: argparse.Namespace, kind: type[Recipe] | type[Shape]) -> dict[str, Any]:
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in vars(options).items() if name in names}


@contextmanager
def _desk(options: argparse.Namespace) -> Iterator[Desk]:
    """With a folder beside the one for the result, so that the result need only be renamed."""
    out, checkpoints = Path(options.out), options.checkpoints and Path(options.checkpoints)
    if out.exists():
        raise WrongInput(f"{out} exists already; name a folder that does not")
    if not Path(options.data).is_file():
        raise WrongInput(f"there is no file {options.data!r}")
    for folder in filter(None, (out.parent, checkpoints)):
        folder.mkdir(parents=True, exist_ok=True)
    segment_s = options.checkpoint_every if checkpoints else math.inf
    with joined() as processes, tempfile.TemporaryDirectory(dir=out.parent, prefix=".train-") as work:
        place = Path(work)
        artifacts = ArtifactStore(f"file://{place.resolve()}")
        yield Desk(
            channel=Terminal(processes),
            artifacts=artifacts,
            cache=place,
            work=place,
            memory_bytes=0,
            segment_s=segment_s,
            processes=processes,
            device=options.device,
            checkpoints=checkpoints,
        )


def _to_the_end(desk: Desk, options: argparse.Namespace, kind: JobKind, *, recipe: Recipe, source: Path, base: str = "") -> None:
    last = desk.last()
    task = JobTask(
        job=Path(options.out).name,
        attempt=1,
        kind=kind,
        params={"base": base},
        checkpoint=last,
        segment=0 if last is None else int(last) + 1,
    )
    result = run_training(task, desk, recipe=recipe, source=source, data=Path(options.data))
    if not desk.processes.is_first:
        return
    shutil.move(desk.work / RESULT, options.out)
    desk.clear()
    del result["manifest"]
    print(json.dumps({str(recipe.scope): str(options.out), **result}))
