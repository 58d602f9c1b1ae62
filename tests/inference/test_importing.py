"""Importing takes safetensors, JSON and text of a model the core can run, and refuses the rest by name."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inference import hub
from inference.artifacts import ArtifactRejected, ArtifactStore
from inference.importing import ImportRefused, Reporter, import_model
from tests.inference.tiny import tiny_base


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("original"), seed=1)


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    copy = tmp_path / "model"
    copy.mkdir()
    for file in original.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


def take_in(source: Path | str, tmp_path: Path, progress: Callable[..., Any] = lambda stage, **facts: None) -> dict[str, Any]:
    return import_model(str(source), artifacts=(tmp_path / "artifacts").as_uri(), cache=tmp_path / "cache", progress=progress)


def stored(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "artifacts").rglob("*") if path.is_file()]


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_folder_becomes_an_artifact_with_facts_and_a_second_run_changes_nothing(folder: Path, tmp_path: Path) -> None:
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Tiny\n")
    stages: list[str] = []

    first = take_in(folder, tmp_path, lambda stage, **facts: stages.append(stage))
    files = {path: path.stat().st_mtime_ns for path in stored(tmp_path) if "blobs" in path.parts}
    second = take_in(folder, tmp_path)
    afresh = import_model(
        str(folder), artifacts=(tmp_path / "artifacts").as_uri(), cache=tmp_path / "other", progress=lambda stage, **facts: None
    )

    config = json.loads((folder / "config.json").read_text())
    facts = first["facts"]
    assert second == first == afresh
    assert {path: path.stat().st_mtime_ns for path in stored(tmp_path) if "blobs" in path.parts} == files
    assert facts["architecture"] == config["architectures"][0]
    assert facts["vocab_size"] == config["vocab_size"]
    assert facts["licence"] == "apache-2.0"
    assert facts["folder"] == str(folder)
    assert facts["size_bytes"] == sum(file.stat().st_size for file in folder.iterdir())
    assert facts["parameter_count"] > 0
    assert facts["memory_bytes"]["int8"] < facts["memory_bytes"]["bfloat16"] < facts["memory_bytes"]["float32"]
    assert facts["context_length"] == config["max_position_embeddings"]
    assert stages[0] == "check"
    assert stages[-1] == "store"
    found = ArtifactStore((tmp_path / "artifacts").as_uri()).materialise(first["manifest"], tmp_path / "cache")
    assert sorted(file.name for file in found.iterdir()) == sorted(file.name for file in folder.iterdir())


def test_what_the_artifact_store_lost_is_stored_again(folder: Path, tmp_path: Path) -> None:
    first = take_in(folder, tmp_path)
    for path in stored(tmp_path):
        path.unlink()

    assert take_in(folder, tmp_path) == first

    assert ArtifactStore((tmp_path / "artifacts").as_uri()).has(first["manifest"])


def test_a_pickle_is_refused_by_name(folder: Path, tmp_path: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"weights": 1}))

    with pytest.raises(ArtifactRejected, match=r"pytorch_model\.bin"):
        take_in(folder, tmp_path)

    assert stored(tmp_path) == []


def without_weights(folder: Path) -> str:
    for file in folder.glob("*.safetensors"):
        file.unlink()
    return r"no \.safetensors"


def truncated(folder: Path) -> str:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    return r"model\.safetensors"


def garbled(folder: Path) -> str:
    (folder / "model.safetensors").write_bytes(b"\xff" * 1000)
    return r"model\.safetensors"


def not_json(folder: Path) -> str:
    (folder / "generation_config.json").write_text("{not json")
    return r"generation_config\.json"


def too_deep(folder: Path) -> str:
    (folder / "generation_config.json").write_text("[" * 100 + "]" * 100)
    return r"generation_config\.json.*64 deep"


def not_text(folder: Path) -> str:
    (folder / "notes.txt").write_bytes(b"caf\xe9")
    return r"notes\.txt: not UTF-8"


def unknown_architecture(folder: Path) -> str:
    edit_json(folder / "config.json", model_type="mamba", architectures=["MambaForCausalLM"])
    return r"(?i)mamba"


def absurd_size(folder: Path) -> str:
    edit_json(folder / "config.json", hidden_size=10**9)
    return r"."


def lying_layers(folder: Path) -> str:
    layers = json.loads((folder / "config.json").read_text())["num_hidden_layers"]
    edit_json(folder / "config.json", num_hidden_layers=layers + 1)
    return r"layers"


def larger_tokenizer(folder: Path) -> str:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    next_id = json.loads((folder / "config.json").read_text())["vocab_size"]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    tokenizer["added_tokens"] += [{"id": next_id, "content": "<|one too many|>", **flags}]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return r"(?i)tokenizer"


def broken_tokenizer(folder: Path) -> str:
    (folder / "tokenizer.json").write_text("{}")
    return r"(?i)tokenizer"


def broken_template(folder: Path) -> str:
    (folder / "chat_template.jinja").write_text("{{ raise_exception('never') }}")
    return r"chat template"


@pytest.mark.parametrize(
    "spoil",
    [
        broken_template,
        without_weights,
        truncated,
        garbled,
        not_json,
        too_deep,
        not_text,
        unknown_architecture,
        absurd_size,
        lying_layers,
        larger_tokenizer,
        broken_tokenizer,
    ],
)
def test_a_folder_that_is_not_what_it_says_is_refused_and_leaves_nothing(
    folder: Path, tmp_path: Path, spoil: Callable[[Path], str]
) -> None:
    reason = spoil(folder)

    with pytest.raises(ImportRefused, match=reason):
        take_in(folder, tmp_path)

    assert stored(tmp_path) == []


def test_a_source_that_is_nothing_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ImportRefused, match="neither a folder, nor a repository"):
        take_in("no such thing", tmp_path)


def test_a_hub_that_cannot_be_reached_says_what_else_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")

    with pytest.raises(hub.HubRefused, match="could not be reached"):
        hub.download("someone/model", tmp_path, progress=lambda stage, **facts: None)


def test_the_command_speaks_json_lines(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "inference.importing", str(folder), "--artifacts", (tmp_path / "artifacts").as_uri()]

    done = subprocess.run([*command, "--cache", str(tmp_path / "cache")], capture_output=True, text=True, check=False)
    (folder / "model.safetensors").unlink()
    refused = subprocess.run([*command, "--cache", str(tmp_path / "cache")], capture_output=True, text=True, check=False)

    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, lines[0]["type"], lines[-1]["type"]) == (0, "progress", "result")
    assert len(lines[-1]["manifest"]) == 64
    error = json.loads(refused.stdout.splitlines()[-1])
    assert (refused.returncode, error["type"], error["code"]) == (1, "error", "weights")


def test_progress_is_said_a_few_times_a_second_and_at_the_end() -> None:
    lines: list[dict[str, Any]] = []
    progress = Reporter(lines.append, every_s=60)

    for share in (0.1, 0.2, 0.3, 1.0):
        progress("store", done=share)

    assert [line["done"] for line in lines] == [0.1, 1.0]
