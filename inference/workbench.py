"""What a job has to work with: its channel, the artifacts by digest, a folder of its own, and its share of the machine."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from inference.artifacts import ArtifactError, ArtifactStore, ArtifactUnreachable
from inference.checkpoint import CheckpointError, check, load_gpt
from inference.config import GPTConfig, UnsupportedModel
from inference.job_process import Channel, JobError, Order
from inference.model import GPT
from inference.problems import UnusableDataset
from inference.processes import ALONE, Processes
from inference.tokenizer import Tokenizer, TokenizerError

log = logging.getLogger(__name__)

DTYPE_BYTES = {torch.bfloat16: 2, torch.float32: 4}


def device_of() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Workbench:
    channel: Channel
    artifacts: ArtifactStore
    cache: Path
    work: Path  # scratch, removed with the process
    memory_bytes: int  # 0: no limit
    segment_s: float
    processes: Processes = ALONE
    device: str = field(default_factory=device_of)

    @classmethod
    def of(cls, order: Order, channel: Channel, work: Path) -> Workbench:
        return cls(
            channel=channel,
            artifacts=ArtifactStore(order.artifacts),
            cache=Path(order.cache),
            work=work,
            memory_bytes=order.memory_bytes,
            segment_s=order.segment_s,
        )

    def folder(self, digest: str) -> Path:
        """The verified files of an artifact. Raises JobError."""
        with explained():
            return self.artifacts.materialise(digest, self.cache, done=lambda share: self.channel.progress("fetching", done=share))

    def file(self, sha256: str) -> Path:
        with explained():
            return self.artifacts.fetch(sha256, self.cache)

    def put(self, folder: Path) -> str:
        """Stores a folder as an artifact; its digest."""
        with explained():
            return self.artifacts.put_folder(folder).digest

    def keep(self, write: Callable[[Path], None], *, number: int) -> str:
        """Stores the folder that `write` fills as the checkpoint at the end of the segment of that number; its digest."""
        return self.snapshot(write)

    def snapshot(self, write: Callable[[Path], None]) -> str:
        """Stores the folder that `write` fills; its digest."""
        folder = self.work / "snapshot"
        folder.mkdir()
        try:
            write(folder)
            return self.put(folder)
        finally:
            shutil.rmtree(folder)

    def forget(self, digest: str, *, kept: str) -> None:
        """Removes an artifact that only this job knew, but for the files it shares with `kept`. What fails is only left over."""
        try:
            self.artifacts.remove(digest, kept=kept)
        except ArtifactError as error:
            log.warning("superseded checkpoint %s not removed: %s", digest, error)

    def tokenizer(self, base: Path) -> Tokenizer:
        with explained():
            return Tokenizer.from_folder(base)

    def model(self, base: Path, *, room_bytes: int = 0) -> GPT:
        """The base in the numbers it is stored in, where this machine computes with them; `room_bytes` is what it needs besides."""
        self.channel.progress("loading")
        with explained():
            dtype = numbers_of(base)
            needed = GPTConfig.from_folder(base).parameter_count * DTYPE_BYTES[dtype] + room_bytes
            if self.memory_bytes and needed > self.memory_bytes:
                message = f"The job needs about {needed // 2**20} MB; this worker may use {self.memory_bytes // 2**20} MB."
                raise JobError("out_of_memory", f"{message} Choose a smaller base or fewer tokens per example.")
            return load_gpt(base, dtype=dtype, device=self.device)


def numbers_of(base: Path) -> torch.dtype:
    """bfloat16 when the weights are stored so and this machine has instructions for it (emulated, it is slower), else float32."""
    return torch.bfloat16 if check(base)["dtype"] == "bfloat16" and _computes_bfloat16() else torch.float32


def _computes_bfloat16() -> bool:
    return torch.cuda.is_available() or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


@contextmanager
def explained() -> Iterator[None]:
    """Turns what can be wrong with artifacts, models and data into the reason a job ends with."""
    try:
        yield
    except ArtifactUnreachable as error:
        raise JobError("artifacts_unreachable", f"The artifact store could not be reached: {error}", retriable=True) from error
    except ArtifactError as error:
        raise JobError("artifact_unusable", f"A file of the job cannot be used: {error}.") from error
    except (CheckpointError, UnsupportedModel, TokenizerError) as error:
        raise JobError("base_unusable", f"The base cannot be used: {error}.") from error
    except UnusableDataset as error:
        raise JobError("data_unusable", f"The file cannot be trained on: {error}", detail=asdict(error.problem)) from error
