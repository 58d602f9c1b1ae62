"""What the tests of jobs share: chat data, an artifact store with a base in it, and a channel that remembers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inference.artifacts import ArtifactStore
from inference.job_process import Cancelled, Paused
from inference.protocol import JobTask
from inference.workbench import Workbench
from tests.inference.tiny import tiny_base

CITIES = ["Paris", "Oslo", "Rome", "Lima", "Bern", "Kyiv", "Doha", "Baku", "Riga", "Male"]
SETTINGS = {"rank": 4, "alpha": 8.0, "epochs": 4, "learning_rate": 5e-3, "batch_size": 4, "max_length": 128, "validation_share": 0.2}


def chat_line(question: str, answer: str) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}).encode()


def chat_file(path: Path, lines: Iterable[bytes] | None = None) -> Path:
    path.write_bytes(
        b"\n".join(lines if lines is not None else [chat_line(f"Where is {c}?", f"{c} is in {c}land.") for c in CITIES]) + b"\n"
    )
    return path


PREFERENCES = [{"prompt": f"Where is {c}?", "chosen": f"In {c}land.", "rejected": "I do not know."} for c in CITIES]


class Told:
    """A channel without a process at its other end; it can be told to pause or to cancel at a segment."""

    def __init__(self, *, pause_at: int | None = None) -> None:
        self.segments: list[dict[str, Any]] = []
        self.said: list[dict[str, Any]] = []
        self.pause_at = pause_at
        self.cancelled = False

    @property
    def pausing(self) -> bool:
        return self.pause_at is not None and len(self.segments) >= self.pause_at

    @property
    def events(self) -> list[dict[str, Any]]:
        return [event for segment in self.segments for event in segment["events"]]

    def raise_if_cancelled(self) -> None:
        if self.cancelled:
            raise Cancelled

    def progress(self, stage: str, *, done: float | None = None, **facts: Any) -> None:
        self.raise_if_cancelled()
        self.said.append({"stage": stage, "done": done, **facts})

    def segment(self, **segment: Any) -> None:
        self.segments.append(segment)
        if self.pausing:
            raise Paused


@dataclass
class Place:
    """An artifact store with a tiny base and a data file, and benches to work at."""

    folder: Path
    base: str = ""
    data: str = ""
    benches: int = field(default=0)
    context: int = 2048

    def __post_init__(self) -> None:
        self.artifacts = ArtifactStore(self.url)
        self.base = self.artifacts.put_folder(tiny_base(self.folder / "base", max_position_embeddings=self.context)).digest
        self.data = self.put_data()

    @property
    def url(self) -> str:
        return (self.folder / "artifacts").as_uri()

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    def put_data(self, lines: Iterable[bytes] | None = None) -> str:
        return self.artifacts.put_file(chat_file(self.folder / "data.jsonl", lines)).sha256

    def bench(self, channel: Any, *, segment_s: float = 0.0) -> Workbench:
        self.benches += 1
        work = self.folder / f"work-{self.benches}"
        work.mkdir()
        return Workbench(channel=channel, artifacts=self.artifacts, cache=self.cache, work=work, memory_bytes=0, segment_s=segment_s)

    def finetune(self, *, job: str = "job_a", changes: Mapping[str, Any] | None = None, **fields: Any) -> JobTask:
        params = {"file": self.data, "base": self.base, "adapter": None, "settings": {**SETTINGS, **(changes or {})}}
        return JobTask(**{"job": job, "attempt": 1, "kind": "finetune", "params": params, **fields})

    def pretraining(
        self, *, shape: Mapping[str, Any], job: str = "job_a", changes: Mapping[str, Any] | None = None, **fields: Any
    ) -> JobTask:
        params = {"file": self.data, "name": "corpus.txt", "shape": dict(shape), "settings": dict(changes or {})}
        return JobTask(**{"job": job, "attempt": 1, "kind": "pretraining", "params": params, **fields})

    def learned_bytes(self, manifest: str) -> bytes:
        """The weights of a result: an adapter's or a model's."""
        (file,) = self.artifacts.materialise(manifest, self.cache).glob("*.safetensors")
        return file.read_bytes()
