"""The processes of one run that torchrun started: they share each step's passes and every layer's weights (FSDP2).

`python -m torch.distributed.run --nproc-per-node 2 -m inference train …` runs it; without torchrun there is one process, and nothing here
costs anything. Whatever meets at a layer must be there in every process, so all of them do the same number of passes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from inference.model import GPT

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def share(self, groups: Sequence[T]) -> Iterator[tuple[T, float]]:
        """This process's part of the groups, and what the loss of each is multiplied by: then the mean over the processes of all
        gradients is the sum over all groups. Who has none left takes one again that counts for nothing.
        """
        for at in range(self.rank, math.ceil(len(groups) / self.count) * self.count, self.count):
            yield groups[min(at, len(groups) - 1)], float(self.count) if at < len(groups) else 0.0

    def pass_tokens(self, tokens: int, *, most: int) -> int:
        """Of one pass of so many tokens in all: few enough that each process gets its part of a small step."""
        return min(most, math.ceil(tokens / self.count)) if self.count > 1 else most

    def mean(self, value: float) -> float:
        if self.count == 1:
            return value
        found = torch.tensor(value, dtype=torch.float64)
        torch.distributed.all_reduce(found)
        return float(found) / self.count

    def average(self, parameters: Iterable[Tensor]) -> None:
        """The gradients of what stands whole in every process; those of sharded weights are the mean already."""
        if self.count == 1:
            return
        for parameter in parameters:
            if parameter.grad is not None and not _is_sharded(parameter):
                torch.distributed.all_reduce(parameter.grad)
                parameter.grad /= self.count

    def agreed(self, yes: bool) -> bool:
        """What the first process says."""
        if self.count == 1:
            return yes
        said = torch.tensor(int(yes))
        torch.distributed.broadcast(said, src=0)
        return bool(said)

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            torch.distributed.barrier()


ALONE = Processes()


@contextmanager
def joined() -> Iterator[Processes]:
    """Those torchrun tells of in the environment, or this one alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield Processes(torch.distributed.get_rank(), torch.distributed.get_world_size())
    finally:
        torch.distributed.destroy_process_group()


def shard(model: GPT, processes: Processes) -> None:
    """Leaves each process its part of every weight; a layer's are gathered while it computes."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(model.device.type, (processes.count,))
    for layer in model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)


def whole(tensor: Tensor) -> Tensor:
    """All of a sharded weight, in every process; every process must ask."""
    return tensor.full_tensor() if _is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def _is_sharded(tensor: Tensor) -> bool:
    return hasattr(tensor, "full_tensor")  # a DTensor, whose module need not be loaded to tell
