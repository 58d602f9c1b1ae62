"""LoRA adapters: PEFT's folders read and written, and an adapter's numbers in one piece of memory.

An adapter adds B·A·x, scaled, to chosen projections of its base. It is checked before it is used: only what is supported
here, ranks and shapes that fit the base, every number finite. What would change the answer in a way that is not supported
(DoRA, trained biases, whole modules saved beside, starts that change the base) is refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from inference.config import GPTConfig
from inference.lora_settings import CONFIG, AdapterError, LoraSettings
from inference.naming import projection_shapes

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."  # PEFT puts it before the names of the base's modules
RANKS = (8, 16, 32, 64, 128, 256)  # a rank is filled up with zeros to one of these, so that more adapters are alike
DTYPES = ("F32", "F16", "BF16")
ONE_THREAD = 32_768  # numbers that torch does not divide among threads


class Layout:
    """Where each projection's A and B stand among an adapter's numbers. Adapters of one layout can be stacked.

    `ranks`, int32 [projections], is 0 for a projection that is not adapted; `starts`, int64 [projections], says where A
    [rank, in] begins, directly behind which B stands transposed, [rank, out]. Projections are in the order of
    `GPT.projections`.
    """

    def __init__(self, config: GPTConfig, ranks: tuple[int, ...]) -> None:
        self._places: dict[str, tuple[int, int, int, int]] = {}  # start, rank, in, out
        starts, at = [], 0
        for (name, (outs, ins)), rank in zip(projection_shapes(config).items(), ranks, strict=True):
            starts.append(at)
            if rank:
                self._places[name] = (at, rank, ins, outs)
            at += rank * (ins + outs)
        self.size = at
        self.ranks = torch.tensor(ranks, dtype=torch.int32, device="cpu")
        self.starts = torch.tensor(starts, dtype=torch.int64, device="cpu")

    def views(self, flat: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """A [..., rank, in] and B transposed [..., rank, out] of each adapted projection, inside `flat` [..., size]."""
        found = {}
        for name, (start, rank, ins, outs) in self._places.items():
            middle = start + rank * ins
            a = flat[..., start:middle].unflatten(-1, (rank, ins))
            b = flat[..., middle : middle + rank * outs].unflatten(-1, (rank, outs))
            found[name] = (a, b)
        return found


layout_of = lru_cache(maxsize=256)(Layout)  # one for all adapters that are alike


@dataclass(frozen=True, eq=False)
class Adapter:
    """The numbers of one adapter, B already scaled."""

    flat: Tensor  # [layout.size]
    layout: Layout
    rank: int  # the highest, before it was filled up
    parameter_count: int

    @property
    def ranks(self) -> Tensor:
        return self.layout.ranks

    @property
    def starts(self) -> Tensor:
        return self.layout.starts

    @property
    def size_bytes(self) -> int:
        return self.flat.nbytes

    @cached_property
    def parts(self) -> Mapping[str, tuple[Tensor, Tensor]]:
        """A [rank, in] and B transposed [rank, out] of each adapted projection."""
        return self.layout.views(self.flat)

    @classmethod
    def load(
        cls,
        folder: Path,
        config: GPTConfig,
        *,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        base: str = "",
        pinned: bool = False,
        admit: Callable[[int], object] = lambda size_bytes: None,
    ) -> Adapter:
        """Reads and checks a PEFT folder for a base with `config` and, where known, the digest `base`. Raises AdapterError.

        `admit` is told the adapter's size before memory for it is taken.
        """
        settings = LoraSettings.read(Path(folder) / CONFIG)
        settings.check_base(base)
        path = Path(folder) / WEIGHTS
        if not path.is_file():
            raise AdapterError(f"there is no {WEIGHTS}; only safetensors adapters are read")
        try:
            with safe_open(path, framework="pt") as opened:
                return cls._read(opened, settings, config, dtype=dtype, device=device, pinned=pinned, admit=admit)
        except (SafetensorError, OSError) as error:
            raise AdapterError(f"{WEIGHTS} is not a whole safetensors file: {error}") from error

    @classmethod
    def _read(
        cls,
        opened: Any,
        settings: LoraSettings,
        config: GPTConfig,
        *,
        dtype: torch.dtype,
        device: str | torch.device,
        pinned: bool,
        admit: Callable[[int], object],
    ) -> Adapter:
        pairs = _pairs(opened, settings, config)
        layout = layout_of(config, tuple(_filled_up(pairs[name].rank) if name in pairs else 0 for name in projection_shapes(config)))
        admit(layout.size * dtype.itemsize)
        flat = torch.empty(layout.size, dtype=dtype, pin_memory=pinned)
        count = 0
        for name, (a, b) in layout.views(flat).items():
            pair = pairs[name]
            down, up = opened.get_tensor(pair.down), opened.get_tensor(pair.up)
            _fill(a, down)
            _fill(b, up.t(), scale=pair.scale)
            count += down.numel() + up.numel()
        if not _finite(flat):
            raise AdapterError(f"{WEIGHTS} has numbers that are not finite")
        return cls(flat.to(device), layout, max(pair.rank for pair in pairs.values()), count)


@dataclass
class _Pair:
    """The tensors of a projection in the file, by their names."""

    rank: int
    scale: float
    down: str = ""
    up: str = ""


def _pairs(opened: Any, settings: LoraSettings, config: GPTConfig) -> dict[str, _Pair]:
    """The adapted projections, with names, types and shapes checked before any weight is read."""
    shapes = projection_shapes(config)
    pairs: dict[str, _Pair] = {}
    for tensor in opened.keys():  # noqa: SIM118 - not a mapping
        name, _, side = tensor.removeprefix(PREFIX).removesuffix(".weight").rpartition(".lora_")
        if tensor != f"{PREFIX}{name}.lora_{side}.weight" or side not in ("A", "B") or name not in shapes:
            raise AdapterError(f"{WEIGHTS}: {tensor[:200]} is not the LoRA of a projection of this base")
        if name not in pairs:
            pairs[name] = _Pair(*settings.rank_and_scale(name))
        pair, (outs, ins) = pairs[name], shapes[name]
        part = opened.get_slice(tensor)
        expected = [pair.rank, ins] if side == "A" else [outs, pair.rank]
        if (shape := list(part.get_shape())) != expected:
            raise AdapterError(f"{WEIGHTS}: {tensor} has the shape {shape}; this base and rank {pair.rank} call for {expected}")
        if (dtype := part.get_dtype()) not in DTYPES:
            raise AdapterError(f"{WEIGHTS}: {tensor} is {dtype}; only {', '.join(DTYPES)} are supported")
        if side == "A":
            pair.down = tensor
        else:
            pair.up = tensor
    if not pairs:
        raise AdapterError(f"{WEIGHTS} holds no weights")
    for name, pair in pairs.items():
        if not (pair.down and pair.up):
            raise AdapterError(f"{WEIGHTS}: {name} has only one of lora_A and lora_B")
    return pairs


def _fill(place: Tensor, rows: Tensor, *, scale: float = 1.0) -> None:
    """Copies the rows, scaled, into the first of `place` and zeroes those behind.

    In parts so small that torch copies them in this thread: whoever loads must not take the threads of those who compute.
    """
    at_once = max(1, ONE_THREAD // place.shape[1])
    for at in range(0, len(rows), at_once):
        part = rows[at : at + at_once]
        place[at : at + len(part)] = part if scale == 1.0 else part.float() * scale
    if len(rows) < len(place):
        place[len(rows) :] = 0


def _finite(numbers: Tensor) -> bool:
    """Whether all are; the extremes of a part are not numbers where one of its numbers is not."""
    extremes = [extreme for part in numbers.split(ONE_THREAD) for extreme in torch.aminmax(part)]
    return bool(torch.stack(extremes).isfinite().all())


def _filled_up(rank: int) -> int:
    return next(size for size in RANKS if size >= rank)


def save(
    folder: Path, weights: Mapping[str, tuple[Tensor, Tensor]], *, config: GPTConfig, alpha: float, base: str, rank_stabilised: bool = False
) -> None:
    """Writes `folder` so that PEFT and `Adapter.load` read it: the form in which an adapter is stored and taken elsewhere.

    `weights` holds A [rank, in] and B [out, rank] by the projection's Hugging Face name; `base` names what it was trained on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (rank,) = {a.shape[0] for a, _ in weights.values()}
    tensors = {}
    for name, (a, b) in weights.items():
        tensors[f"{PREFIX}{name}.lora_A.weight"] = a.detach().cpu().contiguous()
        tensors[f"{PREFIX}{name}.lora_B.weight"] = b.detach().cpu().contiguous()
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "use_rslora": rank_stabilised,
        "use_dora": False,
        "fan_in_fan_out": config.architecture == "gpt2",  # its projections are Conv1D in transformers
        "target_modules": _targets(weights.keys(), projection_shapes(config).keys()),
        "inference_mode": True,
    }
    (folder / CONFIG).write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _targets(adapted: Collection[str], projections: Collection[str]) -> list[str]:
    """The ends of the adapted projections' names, long enough that no other projection's name has them (PEFT's rule)."""
    others = {name.rpartition(".")[2] for name in projections if name not in adapted}
    ends = {name: name.rpartition(".")[2] for name in adapted}
    return sorted({".".join(name.split(".")[-2:]) if end in others else end for name, end in ends.items()})
