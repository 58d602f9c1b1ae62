"""Files that a publisher brought: what is right becomes an artifact, and what is wrong is told by file, all at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from inference import brought
from inference.artifacts import manifest_of
from inference.job_process import JobError
from inference.protocol import JobTask
from tests.inference.job_bench import Place, Told
from tests.inference.tiny import tiny_adapter


@pytest.fixture
def place(tmp_path: Path) -> Place:
    torch.set_num_threads(1)
    return Place(tmp_path)


def taken(place: Place, folder: Path, **params: Any) -> dict[str, Any]:
    files = [{"path": path.name, "sha256": place.artifacts.put_file(path).sha256} for path in sorted(folder.iterdir())]
    task = JobTask(job="job_a", attempt=1, kind="import", params={"kind": "weights", "base": "", "files": files} | params)
    return brought.run(task, place.bench(Told()))


def refused(place: Place, folder: Path, **params: Any) -> list[tuple[str, str]]:
    with pytest.raises(JobError) as error:
        taken(place, folder, **params)
    assert error.value.code == "folder_unusable"
    return [(problem["file"], problem["code"]) for problem in error.value.detail["problems"]]


def test_a_whole_model_folder_becomes_the_artifact_of_its_files(place: Place) -> None:
    folder = place.folder / "base"

    result = taken(place, folder)

    assert result["manifest"] == manifest_of(folder).digest
    assert place.artifacts.has(result["manifest"])
    assert result["facts"]["architecture"] == "LlamaForCausalLM"


def test_everything_that_is_wrong_is_told_by_file(place: Place) -> None:
    folder = place.folder / "base"
    weights = load_file(folder / "model.safetensors")
    save_file({name: tensor[:1].clone() for name, tensor in weights.items()}, folder / "model.safetensors")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer | {"model": {"type": "unheard of"}}))

    assert refused(place, folder) == [("model.safetensors", "weights"), ("tokenizer.json", "tokenizer")]


def test_what_cannot_be_read_or_is_missing_is_told_before_anything_is_loaded(place: Place) -> None:
    folder = place.folder / "base"
    (folder / "config.json").write_bytes(b"\x80\x04\x95 a pickle")
    (folder / "tokenizer.json").unlink()

    assert refused(place, folder) == [("config.json", "file"), ("tokenizer.json", "missing")]


def test_numbers_that_are_none_are_refused(place: Place) -> None:
    folder = place.folder / "base"
    weights = load_file(folder / "model.safetensors")
    next(iter(weights.values())).view(-1)[0] = float("nan")
    save_file(weights, folder / "model.safetensors")

    assert refused(place, folder) == [("model.safetensors", "not_finite")]


def test_an_adapter_must_fit_its_base(place: Place) -> None:
    folder = tiny_adapter(place.folder / "adapter", place.folder / "base")

    assert taken(place, folder, kind="adapter", base=place.base)["facts"]["rank"] > 0

    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"r": config["r"] + 1}))
    assert refused(place, folder, kind="adapter", base=place.base) == [("adapter_model.safetensors", "adapter")]
