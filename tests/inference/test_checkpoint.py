"""Reading weights: what is whole is read from headers alone, what is not is refused by file and tensor."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from inference.checkpoint import INDEX, CheckpointError, check, load_gpt
from tests.inference.tiny import tiny_base


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_base(tmp_path / "model")


def shard(folder: Path) -> None:
    """Splits the weights over two files with an index."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map = {}
    for number, names in enumerate((sorted(weights)[:9], sorted(weights)[9:])):
        file = f"model-0000{number + 1}-of-00002.safetensors"
        save_file({name: weights[name] for name in names}, folder / file)
        weight_map |= dict.fromkeys(names, file)
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))


def test_headers_alone_tell_what_the_weights_are(folder: Path) -> None:
    facts = check(folder)

    assert facts == {
        "architecture": "llama",
        "parameter_count": sum(weight.numel() for weight in load_file(folder / "model.safetensors").values()),
        "context_length": 2048,
        "tensors": 21,
        "dtype": "float32",
        "files": ["model.safetensors"],
        "size_bytes": (folder / "model.safetensors").stat().st_size,
    }


def test_shards_hold_the_same_model_as_one_file(folder: Path, tmp_path: Path) -> None:
    whole = load_gpt(folder, dtype=torch.float32)
    shard(folder)

    parts = load_gpt(folder, dtype=torch.float32)

    assert check(folder)["files"] == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters(), strict=True))


def test_the_weights_do_not_depend_on_the_file_once_loaded(folder: Path) -> None:
    model = load_gpt(folder, dtype=torch.float32)
    before = model.embedding.weight.clone()

    (folder / "model.safetensors").write_bytes(b"")

    assert torch.equal(model.embedding.weight, before)


def rewrite(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file(weights, folder / "model.safetensors")

    return apply


def header_says(change: Callable[[dict[str, dict]], object]) -> Callable[[Path], None]:
    """Rewrites the header only, so that it lies about what follows."""

    def apply(folder: Path) -> None:
        raw = (folder / "model.safetensors").read_bytes()
        (length,) = struct.unpack("<Q", raw[:8])
        header = json.loads(raw[8 : 8 + length])
        change(header)
        encoded = json.dumps(header).encode()
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(encoded)) + encoded + raw[8 + length :])

    return apply


NORM, QUERY = "model.norm.weight", "model.layers.0.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: (f / "model.safetensors").unlink(), r"there is no model\.safetensors"),
        (lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-1]), "not a whole safetensors file"),
        (lambda f: (f / "model.safetensors").write_bytes(b"PK\x03\x04" + b"\0" * 500), "not a whole safetensors file"),
        (lambda f: (f / "model.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}"), "not a whole safetensors file"),
        (header_says(lambda h: h[QUERY].update(shape=[10**9, 10**9])), "not a whole safetensors file"),
        (header_says(lambda h: h[QUERY].update(data_offsets=[0, 2**40])), "not a whole safetensors file"),
        (header_says(lambda h: h[QUERY].update(data_offsets=h[NORM]["data_offsets"])), "not a whole safetensors file"),
        (header_says(lambda h: h[NORM].update(dtype="I32")), r"model\.norm\.weight is I32"),
        (rewrite(lambda w: w.pop(NORM)), r"the tensor model\.norm\.weight is missing"),
        (
            rewrite(lambda w: w.update({QUERY: torch.zeros(8, 8)})),
            r"q_proj\.weight has the shape \[8, 8\]; .* calls for \[64, 64\]",
        ),
        (
            rewrite(lambda w: w.update({"model.layers.2.x": torch.zeros(1)})),
            r"not part of this .*, the first is model\.layers\.2\.x",
        ),
    ],
)
def test_weights_that_are_not_the_models_are_refused(folder: Path, spoil: Callable[[Path], None], said: str) -> None:
    spoil(folder)

    with pytest.raises(CheckpointError, match=said):
        check(folder)
    with pytest.raises(CheckpointError, match=said):
        load_gpt(folder, dtype=torch.float32)


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ({"weight_map": {NORM: "../model.safetensors"}}, "a plain name"),
        ({"weight_map": {NORM: "pytorch_model.bin"}}, "a plain name"),
        ({"weight_map": {NORM: "gone.safetensors"}}, "is missing"),
        ({"weight_map": {}}, "names 0 files"),
        ({"weight_map": [1, 2]}, "cannot be read"),
    ],
)
def test_an_index_that_points_elsewhere_is_refused(folder: Path, index: dict[str, object], said: str) -> None:
    (folder / INDEX).write_text(json.dumps(index))

    with pytest.raises(CheckpointError, match=said):
        check(folder)


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, 3000), byte=st.integers(0, 255), cut=st.integers(0, 3000))
def test_a_damaged_header_is_refused_or_harmless(tmp_path_factory: pytest.TempPathFactory, at: int, byte: int, cut: int) -> None:
    folder = tiny_base(tmp_path_factory.mktemp("damaged"))
    raw = bytearray((folder / "model.safetensors").read_bytes())
    raw[at] = byte
    (folder / "model.safetensors").write_bytes(bytes(raw[:cut]) if byte % 2 else bytes(raw))

    try:
        facts = check(folder)
    except CheckpointError:
        return
    assert facts["tensors"] == 21
