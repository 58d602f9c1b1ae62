"""Matrices in int8, a quarter of float32: each row as whole numbers from -127 to 127 and one scale.

What a matrix is multiplied with stays bfloat16: rounded to int8 too, it was measured to cost six times the quality (KL to
float32 0.038 against 0.006). The scales are numbers that bfloat16 holds exactly, so that a kernel which takes them in
bfloat16 adds no error of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inference.footprint import native_dtype

LARGEST = 127
FEW_ROWS = 32  # of x, up to which the int8 kernel is the faster way; see docs/performance.md
VECTOR = 32  # numbers of a row the int8 kernel reads at once; it reads beyond the end of a row that is no multiple
BLOCK_NUMBERS = 4 * 2**20  # of a matrix, turned into floating point at once


class Int8Rows(nn.Module):
    """A matrix kept in int8: `weight` int8 [out, in] times `scale` float32 [out]."""

    weight: nn.Parameter
    scale: Tensor

    def __init__(self, weight: Tensor) -> None:
        """`weight`: floating point [out, in]."""
        super().__init__()
        self.keep(*quantise(weight))

    def keep(self, whole: Tensor, scale: Tensor) -> None:
        self.weight = nn.Parameter(whole, requires_grad=False)
        self.register_buffer("scale", scale)
        self.register_buffer("narrow_scale", scale.bfloat16())

    def product(self, x: Tensor) -> Tensor:
        """x: [n, in]; returns [n, out] in the dtype of x."""
        narrow = x.dtype == torch.bfloat16 and x.device.type == "cpu"
        if narrow and len(x) <= FEW_ROWS and x.shape[1] % VECTOR == 0:
            return torch.ops.aten._weight_int8pack_mm(x.contiguous(), self.weight, self.narrow_scale)
        wide = x.to(_product_dtype()) if narrow else x
        y = torch.cat([F.linear(wide, part.to(wide.dtype)) for part in _blocks(self.weight)], dim=-1)
        return (y * self.scale).to(x.dtype)

    def rows(self, ids: Tensor) -> Tensor:
        """Float32 [*ids, in]."""
        return F.embedding(ids, self.weight).float() * self.scale[ids][..., None]


class Int8Linear(Int8Rows):
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__(weight)
        self.register_buffer("bias", bias)

    @classmethod
    def joined(cls, parts: Sequence[Int8Linear]) -> Int8Linear:
        """One with the outputs of all."""
        linear = cls.__new__(cls)
        nn.Module.__init__(linear)
        linear.keep(torch.cat([part.weight.data for part in parts]), torch.cat([part.scale for part in parts]))
        biases = [part.bias for part in parts if part.bias is not None]
        linear.register_buffer("bias", torch.cat(biases) if biases else None)
        return linear

    def forward(self, x: Tensor) -> Tensor:
        y = self.product(x)
        return y if self.bias is None else y + self.bias.to(y.dtype)


class Int8Embedding(Int8Rows):
    def forward(self, tokens: Tensor) -> Tensor:
        """Float32 [*tokens, hidden]."""
        return self.rows(tokens)


def in_int8(module: nn.Linear | nn.Embedding, weight: Tensor, bias: Tensor | None = None) -> Int8Rows:
    """What stands in int8 in the module's place. `weight` and `bias` are copied, whatever memory they are in."""
    if isinstance(module, nn.Embedding):
        return Int8Embedding(weight)
    return Int8Linear(weight, None if bias is None else bias.to(torch.float32, copy=True))


def product(matrix: nn.Module, x: Tensor) -> Tensor:
    """x times the rows of a linear or an embedding, however they are kept, without a bias. x: [n, in]; returns [n, rows]."""
    return matrix.product(x) if isinstance(matrix, Int8Rows) else F.linear(x, matrix.weight)  # type: ignore[arg-type]


def rows(matrix: nn.Module, ids: Tensor) -> Tensor:
    """Rows of a linear or an embedding, however they are kept; float32 [*ids, in]."""
    return matrix.rows(ids) if isinstance(matrix, Int8Rows) else F.embedding(ids, matrix.weight).float()  # type: ignore[arg-type]


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """int8 [out, in] and float32 [out], of which the product is nearest to `weight`: [out, in]."""
    whole = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
    scale = torch.empty(len(weight), dtype=torch.float32, device=weight.device)
    for part, into, scales in zip(_blocks(weight), _blocks(whole), scale.split(_block_rows(weight)), strict=True):
        part = part.float()
        scales.copy_((part.abs().amax(dim=1) / LARGEST).bfloat16())
        scales[scales == 0] = 1.0
        into.copy_((part / scales[:, None]).round_().clamp_(-LARGEST, LARGEST))
    return whole, scale


def _blocks(weight: Tensor) -> tuple[Tensor, ...]:
    return weight.split(_block_rows(weight))


def _block_rows(weight: Tensor) -> int:
    return max(BLOCK_NUMBERS // weight.shape[1], 1)


@lru_cache
def _product_dtype() -> torch.dtype:
    """In which this processor multiplies matrices fast. Whole numbers up to 127 are exact in both."""
    return torch.bfloat16 if native_dtype("cpu") == "bfloat16" else torch.float32
