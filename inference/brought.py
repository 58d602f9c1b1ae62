"""A model folder or an adapter that a publisher brought file by file: everything that is wrong with it at once, by file.

What is right becomes an artifact. Nothing of it is run, and nothing but safetensors, JSON and text is read.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from inference import importing
from inference.artifacts import ArtifactRejected, check_file
from inference.checks import ADAPTER_FILES, BASE_FILES, first_not_finite
from inference.config import GPTConfig
from inference.importing import ImportRefused
from inference.job_process import JobError
from inference.lora import Adapter
from inference.lora_settings import AdapterError
from inference.protocol import JobTask
from inference.workbench import Workbench, explained

CONFIG, TOKENIZER, WEIGHTS = "config.json", "tokenizer.json", "model.safetensors"
Problem = dict[str, str]  # {"file", "code", "message"}; the message in English


def run(task: JobTask, bench: Workbench) -> dict[str, Any]:
    """{"manifest": digest, "facts": {…}} of the files in `task.params`. Raises JobError; its detail has the `problems`."""
    folder = _gathered(task.params["files"], bench)
    problems = [problem for file in task.params["files"] for problem in _told(file["path"], partial(_text, folder, file["path"]))]
    needed = ADAPTER_FILES if task.params["kind"] == "adapter" else BASE_FILES
    problems += [_problem(name, "missing", f"{name} is missing.") for name in needed if not (folder / name).is_file()]
    facts: dict[str, Any] = {}
    if not problems:
        look = _adapter if task.params["kind"] == "adapter" else _weights
        problems, facts = look(folder, task.params, bench)
    if problems:
        raise JobError("folder_unusable", f"The files can't be used: {problems[0]['message']}", detail={"problems": problems})
    return {"manifest": bench.put(folder), "facts": facts}


def _gathered(files: list[Mapping[str, Any]], bench: Workbench) -> Path:
    folder = bench.work / "folder"
    folder.mkdir()
    for number, file in enumerate(files, 1):
        if "/" in file["path"] or file["path"] in (".", ".."):
            raise JobError("folder_unusable", f"{file['path']!r} is no name of a file.")
        _put(bench.file(file["sha256"]), folder / file["path"])
        bench.channel.progress("fetching", done=number / len(files) / 4)
    return folder


def _put(blob: Path, place: Path) -> None:
    try:
        os.link(blob, place)
    except OSError:  # the cache is on another file system
        shutil.copyfile(blob, place)


def _text(folder: Path, path: str) -> None:
    check_file(folder, path)
    if not path.endswith(".safetensors"):
        importing.check_text(folder / path)


def _weights(folder: Path, _params: Mapping[str, Any], bench: Workbench) -> tuple[list[Problem], dict[str, Any]]:
    """The tokenizer is looked at also when the weights are wrong; neither without a configuration."""
    if problems := _told(CONFIG, lambda: importing.check_config(folder)):
        return problems, {}
    facts: dict[str, Any] = {}
    bench.channel.progress("reading", done=0.3)
    problems = _told(WEIGHTS, lambda: facts.update(importing.check_weights(folder)))
    problems += _told(TOKENIZER, lambda: importing.check_tokenizer(folder))
    if not problems:
        names = sorted(place.name for place in folder.glob("*.safetensors"))
        if tensor := first_not_finite(folder, names, bench):
            problems = [_problem(WEIGHTS, "not_finite", f"The tensor {tensor} has numbers that are not finite.")]
    return problems, facts


def _adapter(folder: Path, params: Mapping[str, Any], bench: Workbench) -> tuple[list[Problem], dict[str, Any]]:
    with explained():
        config = GPTConfig.from_folder(bench.folder(params["base"]))
    bench.channel.progress("reading", done=0.5)
    try:
        adapter = Adapter.load(folder, config, base=params["base"])
    except AdapterError as error:
        config_file, weights_file = ADAPTER_FILES
        return [_problem(config_file if str(error).startswith(config_file) else weights_file, "adapter", f"{error}.")], {}
    if not any(bool(up.any()) for _, up in adapter.parts.values()):
        return [_problem(ADAPTER_FILES[1], "changes_nothing", "The adapter is zero: it changes nothing of its base.")], {}
    return [], {"rank": adapter.rank, "projections": len(adapter.parts), "parameter_count": adapter.parameter_count}


def _told(file: str, look: Callable[[], object]) -> list[Problem]:
    """What `look` finds wrong with the file."""
    try:
        look()
    except ImportRefused as error:
        return [_problem(file, error.code, str(error))]
    except ArtifactRejected as error:
        return [_problem(file, "file", str(error))]
    return []


def _problem(file: str, code: str, message: str) -> Problem:
    return {"file": file, "code": code, "message": message}
