"""This project's training loop, as `python -m inference train` runs it."""

from __future__ import annotations

import gc
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers.lines import serve
from inference.artifacts import ArtifactStore
from inference.checkpoint import load_gpt
from inference.examples import Example
from inference.job_process import Channel
from inference.protocol import JobTask
from inference.recipe import Recipe
from inference.terminal_training import Desk
from inference.training import Training


class Silent(Channel):
    def __init__(self) -> None:
        super().__init__(sys.stdin, sys.stderr)
        self.losses: list[float] = []

    def progress(self, stage: str, *, done: float | None = None, **facts: Any) -> None:
        self.losses += [event["loss"] for event in facts.get("events") or [] if "loss" in event]

    def segment(self, **_segment: Any) -> None:
        """Nobody records it."""


class OursTraining:
    def __init__(self, options: dict[str, Any]) -> None:
        torch.set_num_threads(options["threads"])
        self._source, self._work = Path(options["folder"]), Path(tempfile.mkdtemp())
        self._dtype = getattr(torch, options["dtype"])
        self._training: Training | None = None

    def versions(self) -> dict[str, str]:
        return {"torch": torch.__version__}

    def ready(self, settings: dict[str, Any], examples: list[list[int]]) -> None:
        """`examples` as they come from a file; the seed says in which order they are trained."""
        self._training = None
        gc.collect()
        model = load_gpt(self._source, dtype=self._dtype)
        self._channel = Silent()
        artifacts = ArtifactStore(self._work.as_uri())
        desk = Desk(self._channel, artifacts, self._work, self._work, memory_bytes=0, segment_s=math.inf)
        taught = [Example(tuple(tokens), (True,) * len(tokens)) for tokens in examples]
        task = JobTask(job="benchmark", attempt=1, kind="finetune", params={"base": ""})
        self._training = Training(task, desk, recipe=Recipe.from_json(settings), model=model, examples=taught, source=self._source)
        self._training.begin()

    def train(self) -> dict[str, Any]:
        assert self._training is not None
        self._training.to_the_end()
        self._channel.losses += [event["loss"] for event in self._training._unsaid]
        return {"losses": self._channel.losses}


if __name__ == "__main__":
    serve(OursTraining)
