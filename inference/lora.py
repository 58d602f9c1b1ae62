"""LoRA adapters in PEFT's format, and many of them in one batch.

An adapter adds B·A·x, scaled, to chosen projections of its base. It is checked before it is used: only what is supported
here, ranks and shapes that fit the base, every number finite. What would change the answer in a way that is not supported
(DoRA, trained biases, whole modules saved beside) is refused by name.
"""

from __future__ import annotations

import json
import math
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from inference.config import GPTConfig
from inference.naming import projection_shapes

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
MAX_CONFIG_BYTES = 1024 * 1024
MAX_RANK = 512
TENSOR_NAME = re.compile(r"base_model\.model\.(?P<projection>.+)\.lora_(?P<side>[AB])\.weight")
REFUSED = {
    "use_dora": "DoRA",
    "modules_to_save": "modules_to_save (whole modules beside the adapter)",
    "lora_bias": "lora_bias",
    "rank_pattern": "rank_pattern (ranks that differ between modules)",
    "alpha_pattern": "alpha_pattern",
    "layer_replication": "layer_replication",
    "trainable_token_indices": "trainable_token_indices",
    "target_parameters": "target_parameters",
    "alora_invocation_tokens": "aLoRA",
    "use_qalora": "QALoRA",
}
CHANGES_BASE = ("pissa", "olora", "corda", "loftq")  # starts that leave the adapter on another base than the original


class AdapterError(ValueError):
    """The adapter cannot be read, does not fit the base or uses what is not supported; the message says what."""


@dataclass(frozen=True)
class Adapter:
    """For each adapted projection, A [rank, in] and B [out, rank], B already scaled."""

    rank: int
    parts: Mapping[str, tuple[Tensor, Tensor]]

    @property
    def size_bytes(self) -> int:
        return sum(part.nbytes for pair in self.parts.values() for part in pair)

    @classmethod
    def load(cls, folder: Path, config: GPTConfig, *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu") -> Adapter:
        """Reads and checks a PEFT folder for a base with `config`. Raises AdapterError."""
        rank, scale = _read_config(Path(folder) / CONFIG)
        path = Path(folder) / WEIGHTS
        if not path.is_file():
            raise AdapterError(f"there is no {WEIGHTS}; only safetensors adapters are read")
        try:
            with safe_open(path, framework="pt") as opened:
                pairs = _pairs(opened, rank, config)
                parts = {}
                for projection, (down, up) in pairs.items():
                    a, b = opened.get_tensor(down).float(), opened.get_tensor(up).float()
                    if not (a.isfinite().all() and b.isfinite().all()):
                        raise AdapterError(f"{WEIGHTS}: the weights for {projection} have numbers that are not finite")
                    parts[projection] = (a.to(device, dtype, copy=True), (b * scale).to(device, dtype))
        except (SafetensorError, OSError) as error:
            raise AdapterError(f"{WEIGHTS} is not a whole safetensors file: {error}") from error
        return cls(rank, parts)


def _read_config(path: Path) -> tuple[int, float]:
    """Rank and scale. Raises AdapterError for what is not supported."""
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise AdapterError(f"{CONFIG} is larger than {MAX_CONFIG_BYTES} bytes")
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, RecursionError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise AdapterError(f"{CONFIG} cannot be read: {error}") from error
    if not isinstance(raw, dict) or raw.get("peft_type") != "LORA":
        raise AdapterError(f"{CONFIG}: peft_type must be LORA")
    for name, called in REFUSED.items():
        if raw.get(name):
            raise AdapterError(f"{CONFIG}: {called} is not supported")
    if (bias := raw.get("bias", "none")) != "none":
        raise AdapterError(f"{CONFIG}: bias={str(bias)[:40]!r} is not supported: only adapters without trained biases are")
    if str(raw.get("init_lora_weights", "")).lower().startswith(CHANGES_BASE):
        raise AdapterError(f"{CONFIG}: init_lora_weights={raw['init_lora_weights']!r} changes the base; convert the adapter to plain LoRA")
    rank, alpha = raw.get("r"), raw.get("lora_alpha")
    if not isinstance(rank, int) or isinstance(rank, bool) or not 0 < rank <= MAX_RANK:
        raise AdapterError(f"{CONFIG}: r is {str(rank)[:40]}; it must be a whole number from 1 to {MAX_RANK}")
    if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not math.isfinite(alpha):
        raise AdapterError(f"{CONFIG}: lora_alpha is {str(alpha)[:40]}; it must be a number")
    return rank, alpha / (math.sqrt(rank) if raw.get("use_rslora") else rank)


def _pairs(opened: Any, rank: int, config: GPTConfig) -> dict[str, tuple[str, str]]:
    """Projection -> names of its A and B, with names and shapes checked before any weight is read."""
    shapes = projection_shapes(config)
    sides: dict[str, dict[str, str]] = {}
    for name in opened.keys():  # noqa: SIM118 - not a mapping
        match = TENSOR_NAME.fullmatch(name)
        if match is None or match["projection"] not in shapes:
            raise AdapterError(f"{WEIGHTS}: {name} is not the LoRA of a projection of this base")
        outs, ins = shapes[match["projection"]]
        expected = [rank, ins] if match["side"] == "A" else [outs, rank]
        if (shape := list(opened.get_slice(name).get_shape())) != expected:
            raise AdapterError(f"{WEIGHTS}: {name} has the shape {shape}; this base and rank {rank} call for {expected}")
        sides.setdefault(match["projection"], {})[match["side"]] = name
    if not sides:
        raise AdapterError(f"{WEIGHTS} holds no weights")
    for projection, pair in sides.items():
        if len(pair) < 2:
            raise AdapterError(f"{WEIGHTS}: {projection} has only one of lora_A and lora_B")
    return {projection: (pair["A"], pair["B"]) for projection, pair in sides.items()}


class LoraBatch:
    """The adapters of one step: each with the rows of the step's tokens it serves, None for all of them."""

    def __init__(self, groups: Sequence[tuple[Adapter, Tensor | None]]) -> None:
        self._groups = groups

    def add(self, projection: str, x: Tensor, y: Tensor) -> Tensor:
        """y plus each row's adapter of x. x: [n, in]; y: [n, out]."""
        for adapter, rows in self._groups:
            if (pair := adapter.parts.get(projection)) is None:
                continue
            down, up = pair
            if rows is None:
                y = y + (x @ down.t()) @ up.t()
            else:
                y = y.index_add(0, rows, (x[rows] @ down.t()) @ up.t())
        return y


class AdapterShelf:
    """Adapters kept in memory by digest, the longest unused dropped when they take more than a budget of bytes."""

    def __init__(self, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self._held: OrderedDict[str, Adapter] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    @property
    def size_bytes(self) -> int:
        return sum(adapter.size_bytes for adapter in self._held.values())

    def get(self, digest: str) -> Adapter | None:
        if digest in self._held:
            self._held.move_to_end(digest)
        return self._held.get(digest)

    def put(self, digest: str, adapter: Adapter) -> None:
        """Requests under way keep theirs whatever is dropped here."""
        self._held[digest] = adapter
        while len(self._held) > 1 and self.size_bytes > self._budget_bytes:
            self._held.popitem(last=False)
