"""What a run needs to go on, as a folder: tensors in groups, and the rest as JSON.

One process writes safetensors, which may become an artifact. Several write what each has of the weights through
torch.distributed.checkpoint, whose list of contents is a pickle: such a folder stays where the run is and is nobody else's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from inference.job_process import JobError
from inference.processes import Processes

STATE, SUFFIX = "state.json", ".safetensors"
RANDOM = "random"  # of each process its own

Groups = dict[str, dict[str, Tensor]]


def write(folder: Path, groups: Groups, state: Mapping[str, Any], *, processes: Processes) -> None:
    """Into a folder that is there and empty. The state's job names the tensors' files, so that those of two jobs are never the same
    bytes, and the one's can be removed.
    """
    if processes.count > 1:
        from torch.distributed import checkpoint

        checkpoint.save(
            {_key(group, name, processes): kept for group in groups for name, kept in groups[group].items()}, checkpoint_id=folder
        )
    else:
        for group, tensors in groups.items():
            filed = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
            save_file(filed, folder / f"{group}{SUFFIX}", metadata={"job": state["job"]})
    if processes.is_first:
        written = {**state, "processes": processes.count}
        (folder / STATE).write_text(json.dumps(written, sort_keys=True), encoding="utf-8")


def read(folder: Path, *, like: Mapping[tuple[str, str], Tensor], processes: Processes) -> tuple[Groups, dict[str, Any]]:
    """(groups, state). `like` has the tensors by group and name that are shared among the processes as those in the folder shall be.

    Raises JobError for what another number of processes wrote.
    """
    state = json.loads((folder / STATE).read_text(encoding="utf-8"))
    wrote = state.pop("processes", 1)
    if wrote != processes.count:
        message = f"The checkpoint is of a run in {wrote} processes and can be taken up by as many, not by {processes.count}."
        raise JobError("checkpoint_unusable", message, detail={"processes": wrote})
    if processes.count == 1:
        return {file.stem: load_file(file) for file in folder.glob(f"*{SUFFIX}")}, state
    return _read_parts(folder, like, processes), state


def _read_parts(folder: Path, like: Mapping[tuple[str, str], Tensor], processes: Processes) -> Groups:
    from torch.distributed import checkpoint
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    groups: Groups = {}
    parts: dict[str, Tensor] = {}
    for key, kept in checkpoint.FileSystemReader(folder).read_metadata().state_dict_metadata.items():
        assert isinstance(kept, TensorStorageMetadata)
        group, _, name = key.partition("/")
        if name.startswith(f"{RANDOM}."):
            name = RANDOM
            if key != _key(group, name, processes):
                continue
        shared = like.get((group, name))
        place = torch.empty(kept.size, dtype=kept.properties.dtype) if shared is None else torch.zeros_like(shared)
        parts[key] = groups.setdefault(group, {})[name] = place
    checkpoint.load(parts, checkpoint_id=folder)
    return groups


def _key(group: str, name: str, processes: Processes) -> str:
    return f"{group}/{name}.{processes.rank}" if name == RANDOM else f"{group}/{name}"
