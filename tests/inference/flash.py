"""What stands in for the attention kernel where there is no GPU, and where tests of the CUDA path run."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from inference.varlen import PAGE_SIZE, flash_kernel

NAN = float("nan")
DEVICES = [
    pytest.param("cpu"),
    pytest.param("cuda", marks=[pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")]),
]


def kernel_of(device: str) -> Callable[..., Tensor]:
    return written_out_kernel if device == "cpu" else real_kernel


def real_kernel(query: Tensor, *args: Any, **options: Any) -> Tensor:
    """torch's, which takes for its output what was just given back here, full of NaN: a row it leaves unwritten shows."""
    spoiled = torch.full_like(query, NAN)
    del spoiled
    return flash_kernel()(query, *args, **options)


def written_out_kernel(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    window_size: tuple[int, int],
    enable_gqa: bool,
    seqused_k: Tensor,
    block_table: Tensor,
    num_splits: int,
) -> Tensor:
    """softmax(QKᵀ/√d)V for each sequence from what the kernel is told, holding the caller to what the kernel demands.

    Rows that belong to no sequence stay NaN.
    """
    assert num_splits == 1
    assert key.shape[1] % PAGE_SIZE == 0
    for numbers in (cu_seq_q, cu_seq_k, seqused_k, block_table):
        assert numbers.dtype == torch.int32
        assert numbers.is_contiguous()
    assert cu_seq_q.shape == cu_seq_k.shape == (len(seqused_k) + 1,)
    assert len(block_table) == len(seqused_k)
    assert query.shape[1] == key.shape[2] or enable_gqa
    left, right = window_size
    assert right == 0
    out = torch.full_like(query, NAN)
    group = query.shape[1] // key.shape[2]
    for number, (used, blocks) in enumerate(zip(seqused_k.tolist(), block_table, strict=True)):
        rows = slice(int(cu_seq_q[number]), int(cu_seq_q[number + 1]))
        q = query[rows].transpose(0, 1).double()  # [heads, n, d]
        count = q.shape[1]
        assert count <= max_q
        assert blocks[0] != 0 or used == 1  # nobody's block is read only by padding, and no further than it must be
        assert count <= used <= min(max_k, block_table.shape[1] * key.shape[1])
        table = blocks[: -(-used // key.shape[1])]
        keys, values = (part[table].flatten(0, 1)[:used].repeat_interleave(group, 1).transpose(0, 1).double() for part in (key, value))
        behind = torch.arange(used - count, used)[:, None] - torch.arange(used)
        seen = (behind >= 0) & ((behind <= left) if left >= 0 else True)
        scores = (q @ keys.transpose(1, 2) / math.sqrt(q.shape[-1])).masked_fill(~seen, float("-inf"))
        out[rows] = (scores.softmax(-1) @ values).transpose(0, 1).to(out.dtype)
    return out
