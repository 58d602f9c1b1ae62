"""A model's matrices laid out anew for serving with torch on a processor: those that read the same input stand side by side, as
one product, and bfloat16 ones in the order in which oneDNN reads them.

oneDNN packs a plain matrix at every product. Packed once, the products of SmolLM2-135M for one token take two thirds of the
time, and its head a third; see docs/performance.md.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from inference.model import GPT, Layer
from inference.quantised import Int8Linear
from inference.runner import TorchRunner

TOGETHER = (("q", "k", "v"), ("gate", "up"))
PREPARED = 64  # products, each for a matrix's shape and a number of rows, that oneDNN keeps; SmolLM2's take 0.6 MB each
ROWS = 32  # of x, for which oneDNN chooses the order; others read it as well
ROWS_OF = {"out": 1}  # this one's order for a single row takes two thirds of the time for 512, and the same for few
ACTIVATIONS = {"silu": ("swish", ""), "gelu_tanh": ("gelu", "tanh"), "gelu": ("gelu", "none")}  # by oneDNN's names


class SideBySide(nn.Module):
    """Projections of the same input, whose outputs stand one behind the other."""

    def __init__(self, matrix: nn.Module, outs: Sequence[int]) -> None:
        super().__init__()
        self.matrix = matrix
        self.outs = list(outs)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """x: [n, in]; returns [n, out] of each."""
        return self.matrix(x).split(self.outs, dim=-1)


class Prepacked(nn.Module):
    """A linear in bfloat16 whose weight only oneDNN can read."""

    def __init__(self, weight: Tensor, bias: Tensor | None, rows: int = ROWS) -> None:
        super().__init__()
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), rows)
        self._bias = None if bias is None else bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, torch.ops.mkldnn._linear_pointwise(x, self._packed, self._bias, "none", [], ""))

    def activated(self, x: Tensor, activation: str) -> Tensor:
        name, algorithm = ACTIVATIONS[activation]
        return cast(Tensor, torch.ops.mkldnn._linear_pointwise(x, self._packed, self._bias, name, [], algorithm))

    def times(self, x: Tensor, factor: Tensor) -> Tensor:
        return cast(Tensor, torch.ops.mkldnn._linear_pointwise.binary(x, factor, self._packed, self._bias, "mul"))


class Inner:
    """All of an MLP before `down`, without a number of it being written and read again between its operations."""

    def __init__(self, gate: Prepacked | None, up: Prepacked, activation: str) -> None:
        self._gate = gate
        self._up = up
        self._activation = activation

    def __call__(self, x: Tensor) -> Tensor:
        """x: [n, hidden]; returns [n, inner]."""
        if self._gate is None:
            return self._up.activated(x, self._activation)
        return self._up.times(x, self._gate.activated(x, self._activation))


def can_prepack(dtype: torch.dtype) -> bool:
    """Whether this processor has instructions for it, and this torch oneDNN."""
    return dtype == torch.bfloat16 and torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def prepack(model: GPT) -> GPT:
    """The model itself, laid out for serving: it gives what it gave but for rounding, and can no longer be trained or looked into."""
    for name in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):  # torch's own and the library's; each is 1,024 by itself
        os.environ.setdefault(name, str(PREPARED))
    packs = can_prepack(model.embedding.weight.dtype)
    for layer in cast(list[Layer], list(model.layers)):
        for names in TOGETHER[: 1 if packs else 2]:  # gate and up apart: there are operations that do more than both of them
            if all(name in layer.projections for name in names):
                parts = [layer.projections.pop(name) for name in names]
                layer.together[names] = SideBySide(_packed(_joined(parts)), [len(cast(Tensor, part.weight)) for part in parts])
        for name, module in layer.projections.items():
            layer.projections[name] = _packed(module, ROWS_OF.get(name, ROWS))
        if packs:
            its = cast(Mapping[str, Prepacked], layer.projections)
            layer.inner = Inner(its["gate"] if layer.config.gated else None, its["up"], layer.config.activation)
    if packs:
        model.packed_head = Prepacked(cast(Tensor, model._head.weight), None)
    return model


def _joined(parts: Sequence[nn.Module]) -> nn.Module:
    """One linear with the outputs of all; all have a bias or none."""
    if isinstance(parts[0], Int8Linear):
        return Int8Linear.joined(cast(Sequence[Int8Linear], parts))
    linears = cast(Sequence[nn.Linear], parts)
    weight = torch.cat([linear.weight.data for linear in linears])
    joined = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    joined.weight = nn.Parameter(weight, requires_grad=False)
    if linears[0].bias is not None:
        joined.bias = nn.Parameter(torch.cat([linear.bias.data for linear in linears]), requires_grad=False)
    return joined


def _packed(module: nn.Module, rows: int = ROWS) -> nn.Module:
    if isinstance(module, nn.Linear) and can_prepack(module.weight.dtype):
        return Prepacked(module.weight, module.bias, rows)
    return module


def prepacked_runner(model: GPT, blocks: int) -> TorchRunner:
    """Takes the model over: it is laid out for serving."""
    return TorchRunner(prepack(model), blocks)
