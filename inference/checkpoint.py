"""Reading weights: safetensors only, by memory map, one tensor at a time. Nothing here can execute what it reads.

`check` looks at headers alone, so it is fast and safe on a folder of any size; `load_gpt` checks too, then fills the
model. Names and shapes must be exactly what the config calls for.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from inference import naming
from inference.config import GPTConfig, UnsupportedModel
from inference.footprint import outlook
from inference.model import GPT
from inference.quantised import in_int8

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
MAX_INDEX_BYTES = 64 * 1024 * 1024
MAX_SHARDS = 1_000
DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
LEFT_OUT = ("rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias")  # tables some old checkpoints carry; they are computed


class CheckpointError(ValueError):
    """The weights cannot be read or are not those of the model; the message says which file or tensor and why."""


@dataclass(frozen=True)
class TensorPlace:
    """Where a parameter stands: in which file, under which name, in which shape."""

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: str  # safetensors' name


def check(folder: Path) -> dict[str, Any]:
    """Facts about the weights, from headers alone: parameters, bytes, dtype, files. Raises CheckpointError, UnsupportedModel."""
    config = GPTConfig.from_folder(folder)
    places = locate(Path(folder), config)
    files = sorted({place.file for place in places.values()})
    dtypes = sorted({DTYPES[place.dtype] for place in places.values()})
    return {
        "architecture": config.architecture,
        "parameter_count": config.parameter_count,
        "context_length": config.context_length,
        "tensors": len(places),
        "dtype": dtypes[0] if len(dtypes) == 1 else "mixed",
        "files": [file.name for file in files],
        "size_bytes": sum(file.stat().st_size for file in files),
    }


def load_gpt(folder: Path, *, dtype: torch.dtype, device: str | torch.device = "cpu") -> GPT:
    """The model with its weights, in evaluation mode. Raises CheckpointError, UnsupportedModel.

    `dtype` is what the matrices are kept in: float32, bfloat16 or int8, into which each is turned as soon as it is read.
    Weights are copied out of the map: aligned for the matrix kernels, and out of reach of whatever happens to the file.
    """
    config = GPTConfig.from_folder(folder)
    places = locate(Path(folder), config)
    with torch.device("meta"):
        model = GPT(config)
    with ExitStack() as stack:
        opened = {file: stack.enter_context(safe_open(file, framework="pt")) for file in {p.file for p in places.values()}}

        def stored(inner: str) -> Tensor:
            weight = opened[places[inner].file].get_tensor(places[inner].name)
            return weight.t() if naming.is_transposed(config, inner) else weight

        for name, module in list(model.named_modules()):
            weights = {leaf: stored(f"{name}.{leaf}") for leaf, _ in module.named_parameters(recurse=False)}
            if dtype == torch.int8 and isinstance(module, nn.Linear | nn.Embedding) and name != "positions":
                model.set_submodule(name, in_int8(module, **weights).to(device))
                continue
            norm = "norm" in name  # norms are few numbers, and matter
            kept_as = torch.float32 if norm or dtype == torch.int8 else dtype
            for leaf, weight in weights.items():
                kept = torch.empty(weight.shape, dtype=kept_as, device=device).copy_(weight)
                setattr(module, leaf, nn.Parameter(kept.add_(naming.norm_offset(config)) if norm else kept, requires_grad=False))
    return model.eval()


def described(folder: Path) -> dict[str, Any]:
    """What the store keeps of a model, from its headers and its configuration. Raises CheckpointError, UnsupportedModel."""
    found = check(folder)
    raw = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    return {
        "architecture": (raw.get("architectures") or [raw.get("model_type", "")])[0],
        **outlook(folder),
        "vocab_size": GPTConfig.from_folder(folder).vocab_size,
        "dtype": found["dtype"],
    }


def save(folder: Path, weights: Mapping[str, Tensor], *, source: Path) -> None:
    """Writes a checkpoint that transformers and `load_gpt` read: `weights` by their names in `GPT`, in the dtype, under the names and
    beside the configuration and the tokenizer of the checkpoint in `source`. Raises CheckpointError, UnsupportedModel.
    """
    config = GPTConfig.from_folder(source)
    places = locate(source, config)
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(Path(source).iterdir()):
        if file.is_file() and file.suffix != ".safetensors" and file.name != INDEX:
            shutil.copyfile(file, folder / file.name)
    filed = {}
    for inner, place in places.items():
        weight = weights[inner].detach().cpu()
        if "norm" in inner:
            weight = weight - naming.norm_offset(config)
        if naming.is_transposed(config, inner):
            weight = weight.t()
        filed[place.name] = weight.to(getattr(torch, DTYPES[place.dtype])).contiguous()
    save_file(filed, folder / SINGLE, metadata={"format": "pt"})


def locate(folder: Path, config: GPTConfig) -> dict[str, TensorPlace]:
    """Each parameter's place, by its name in `GPT`. Reads headers only. Raises CheckpointError."""
    found: dict[str, TensorPlace] = {}
    for file in _files(folder):
        for place in _read_header(file):
            if place.name in found:
                raise CheckpointError(f"{file.name}: the tensor {place.name} stands in {found[place.name].file.name} too")
            found[place.name] = place
    found = {name: place for filed, place in found.items() if (name := naming.filed_name(config, filed)) is not None}
    found = {name: place for name, place in found.items() if not name.endswith(LEFT_OUT)}
    if config.tied:
        found.pop("lm_head.weight", None)
    bare = not any(name.startswith(naming.prefix(config)) for name in found)
    expected = _expected(config)
    places: dict[str, TensorPlace] = {}
    for inner, shape in expected.items():
        outer = naming.outer_name(config, inner)
        outer = outer.removeprefix(naming.prefix(config)) if bare else outer
        if (here := found.pop(outer, None)) is None:
            raise CheckpointError(f"the tensor {outer} is missing")
        if here.shape != shape:
            raise CheckpointError(f"{here.file.name}: {outer} has the shape {list(here.shape)}; config.json calls for {list(shape)}")
        if here.dtype not in DTYPES:
            raise CheckpointError(f"{here.file.name}: {outer} is {here.dtype}; only F32, F16 and BF16 are supported")
        places[inner] = here
    if found:
        raise CheckpointError(f"{len(found)} tensors are not part of this architecture, the first is {min(found)}")
    return places


def _expected(config: GPTConfig) -> dict[str, tuple[int, ...]]:
    """Name in `GPT` -> shape in the file, without allocating anything."""
    with torch.device("meta"):
        model = GPT(config)
    return {
        name: tuple(reversed(weight.shape)) if naming.is_transposed(config, name) else tuple(weight.shape)
        for name, weight in model.named_parameters()
    }


def _files(folder: Path) -> list[Path]:
    index = folder / INDEX
    if not index.exists():
        if not (folder / SINGLE).is_file():
            raise CheckpointError(f"there is no {SINGLE}; only safetensors weights are read")
        return [folder / SINGLE]
    try:
        if index.stat().st_size > MAX_INDEX_BYTES:
            raise CheckpointError(f"{INDEX} is larger than {MAX_INDEX_BYTES} bytes")
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, RecursionError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{INDEX} cannot be read: {error}") from error
    if not 0 < len(names) <= MAX_SHARDS:
        raise CheckpointError(f"{INDEX} names {len(names)} files; 1 to {MAX_SHARDS} are supported")
    return [_shard(folder, name) for name in sorted(names, key=str)]


def _shard(folder: Path, name: object) -> Path:
    if not isinstance(name, str) or not name.endswith(".safetensors") or Path(name).name != name or "\\" in name:
        raise CheckpointError(f"{INDEX} names {str(name)[:80]!r}; a plain name that ends in .safetensors is needed")
    if not (folder / name).is_file():
        raise CheckpointError(f"{INDEX} names {name}, which is missing")
    return folder / name


def _read_header(file: Path) -> Iterable[TensorPlace]:
    """Every tensor a file declares. safetensors itself refuses headers that do not fit the file."""
    try:
        with safe_open(file, framework="pt") as opened:
            places = []
            for name in opened.keys():  # noqa: SIM118 - not a mapping
                part = opened.get_slice(name)
                places.append(TensorPlace(file, name, tuple(part.get_shape()), part.get_dtype()))
            return places
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{file.name} is not a whole safetensors file: {error}") from error


__all__ = ["CheckpointError", "TensorPlace", "UnsupportedModel", "check", "load_gpt", "locate"]
