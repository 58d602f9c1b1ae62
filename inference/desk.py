"""Training from a terminal: the job's own loop, at a workbench without a store."""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from inference import pretraining
from inference.artifacts import ArtifactStore
from inference.given import WrongInput, folder_of
from inference.job_process import Channel
from inference.pretraining import Shape
from inference.protocol import JobKind, JobTask
from inference.recipe import Recipe
from inference.training import RESULT
from inference.training import train as run_training
from inference.workbench import Workbench


class Terminal(Channel):
    """The job's side of a conversation with a person who only looks on."""

    def __init__(self) -> None:
        super().__init__(sys.stdin, sys.stderr)

    def progress(self, stage: str, *, done: float | None = None, **facts: Any) -> None:
        events = facts.get("events") or [{}]
        said = [f"{name} {events[-1][name]:.4f}" for name in ("loss", "validation_loss") if name in events[-1]]
        place = f" {facts['step']}/{facts['steps']}" if "steps" in facts else ""
        print(f"{stage}{place}{': ' if said else ''}{', '.join(said)}", file=sys.stderr, flush=True)

    def segment(self, *, number: int, checkpoint: str, events: list[dict[str, Any]], done: float) -> None:
        """Nobody records it."""


@dataclass(frozen=True)
class Desk(Workbench):
    """A workbench without an artifact store: what is made stays in `work`."""

    def put(self, folder: Path) -> str:
        return folder.name

    def forget(self, digest: str, *, kept: str) -> None:
        """Nothing was put anywhere."""


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
    out = Path(options.out)
    if out.exists():
        raise WrongInput(f"{out} exists already; name a folder that does not")
    if not Path(options.data).is_file():
        raise WrongInput(f"there is no file {options.data!r}")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".train-") as work:
        place = Path(work)
        yield Desk(Terminal(), ArtifactStore(f"file://{place.resolve()}"), place, place, memory_bytes=0, segment_s=math.inf)


def _to_the_end(desk: Desk, options: argparse.Namespace, kind: JobKind, *, recipe: Recipe, source: Path, base: str = "") -> None:
    task = JobTask(job=Path(options.out).name, attempt=1, kind=kind, params={"base": base})
    result = run_training(task, desk, recipe=recipe, source=source, data=Path(options.data))
    shutil.move(desk.work / RESULT, options.out)
    del result["manifest"]
    print(json.dumps({str(recipe.scope): str(options.out), **result}))
