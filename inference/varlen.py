"""Attention over the paged cache on CUDA: one kernel call per layer for all sequences of a step, chunks and single tokens alike.

The kernel is torch's own (`torch.nn.attention.varlen`, FlashAttention 2). It takes the block tables as they are, so nothing
is gathered. What it demands is asked when a model is loaded: bfloat16 or float16, heads of at most 256 numbers, and pages of
a multiple of 256 tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from inference.attention import KeyValueStore, Piece, slots_of
from inference.config import GPTConfig

PAGE_SIZE = 256  # tokens: the smallest block of which the kernel reads a table
DTYPES = (torch.bfloat16, torch.float16)
LARGEST_HEAD = 256
HEAD_STEP = 8
OLDEST_GPU = (8, 0)  # Ampere

Kernel = Callable[..., Tensor]  # with the signature of `torch.nn.attention.varlen.varlen_attn`


class UnfitForKernel(ValueError):
    """The kernel cannot read what it would be given."""


def flash_kernel() -> Kernel:
    from torch.nn.attention.varlen import varlen_attn  # only here: processors never need it

    return cast(Kernel, varlen_attn)


def kernel_refusal(config: GPTConfig, *, dtype: torch.dtype, device: torch.device) -> str | None:
    """Why the kernel cannot serve this model on this device; None when it can."""
    if device.type != "cuda":
        return f"it runs on CUDA, not on {device.type}"
    if torch.version.hip is not None:
        return "the ROCm build of it takes no number of splits"
    if torch.cuda.get_device_capability(device) < OLDEST_GPU:
        return f"it needs a GPU of compute capability {OLDEST_GPU[0]}.{OLDEST_GPU[1]} or newer"
    return shape_refusal(config, dtype=dtype)


def shape_refusal(config: GPTConfig, *, dtype: torch.dtype) -> str | None:
    if dtype not in DTYPES:
        return f"it computes in bfloat16 and float16, not in {str(dtype).removeprefix('torch.')}"
    if config.head_dim > LARGEST_HEAD or config.head_dim % HEAD_STEP:
        return f"it takes heads of up to {LARGEST_HEAD} numbers, a multiple of {HEAD_STEP}; this model's have {config.head_dim}"
    return None


def check_pages(store: KeyValueStore) -> None:
    """Raises UnfitForKernel when the kernel would refuse the store's blocks at the first step."""
    if store.block_size % PAGE_SIZE:
        raise UnfitForKernel(
            f"The attention kernel reads pages of a multiple of {PAGE_SIZE} tokens; the blocks of this store have {store.block_size}."
        )


@dataclass(frozen=True)
class StepTables:
    """Where the tokens of a step go and what they see, as the kernel reads it. b sequences with n tokens together."""

    slots: Tensor  # int64 [n], into the tokens of all blocks
    starts: Tensor  # int32 [b + 1]: at which row each sequence begins, and the end
    lengths: Tensor  # int32 [b]: keys of each sequence, with those of this step
    blocks: Tensor  # int32 [b, width], filled up with block 0
    most_tokens: int  # of a sequence in this step, or more
    longest: int  # keys of a sequence, or more

    @classmethod
    def of(cls, pieces: Sequence[Piece], store: KeyValueStore) -> StepTables:
        def ints(values: Sequence[int] | Sequence[Sequence[int]]) -> Tensor:
            return torch.tensor(values, dtype=torch.int32, device=store.keys.device)

        counts = [piece.count for piece in pieces]
        ends = [piece.end for piece in pieces]
        return cls(
            slots=torch.tensor(slots_of(pieces, store.block_size), device=store.keys.device),
            starts=ints([0, *accumulate(counts)]),
            lengths=ints(ends),
            blocks=ints(block_rows(pieces, store.block_size)),
            most_tokens=max(counts),
            longest=max(ends),
        )


def block_rows(pieces: Sequence[Piece], block_size: int) -> list[list[int]]:
    """The blocks that hold each piece's keys, filled up with block 0 to the longest."""
    used = [list(piece.blocks[: -(-piece.end // block_size)]) for piece in pieces]
    width = max(map(len, used))
    return [row + [0] * (width - len(row)) for row in used]


class VarlenAttention:
    """One step over the paged cache: writes the step's keys and values into their blocks, then attends."""

    def __init__(self, store: KeyValueStore, tables: StepTables, kernel: Kernel) -> None:
        self._store = store
        self._tables = tables
        self._kernel = kernel
        # With `seqused_k` only the shape of this is looked at, but it must be there.
        self._key_starts = F.pad(tables.lengths.cumsum(0, dtype=torch.int32), (1, 0))

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, *, window: int | None) -> Tensor:
        keys, values = self._store.keys[layer], self._store.values[layer]
        keys.view(-1, *k.shape[1:]).index_copy_(0, self._tables.slots, k)
        values.view(-1, *v.shape[1:]).index_copy_(0, self._tables.slots, v)
        return self._kernel(
            q.contiguous(),
            keys,
            values,
            self._tables.starts,
            self._key_starts,
            self._tables.most_tokens,
            self._tables.longest,
            window_size=(-1 if window is None else window - 1, 0),  # a sequence's last token sees its last key
            enable_gqa=q.shape[1] != k.shape[1],
            seqused_k=self._tables.lengths,
            block_table=self._tables.blocks,
            num_splits=1,  # with more, rows of all sequences but the first stay unwritten (pytorch#194167)
        )
