"""Attention is softmax(QKᵀ/√d)V over what each token may see, written out here with nothing but that."""

from __future__ import annotations

import math
import random

import pytest
import torch
from torch import Tensor

from inference.attention import CausalAttention, KeyValueStore, PagedAttention, Piece
from inference.config import GPTConfig
from tests.inference.tiny import tiny_base

LENGTHS = [1, 7, 40, 17]
BLOCK = 4


def written_out(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    """One sequence. q: [n, heads, d]; k, v: [n, kv_heads, d]."""
    (n, heads, d), group = q.shape, q.shape[1] // k.shape[1]
    out = torch.empty(n, heads, d, dtype=torch.float64)
    for token in range(n):
        first = 0 if window is None else max(token - window + 1, 0)
        for head in range(heads):
            keys, values = k[first : token + 1, head // group].double(), v[first : token + 1, head // group].double()
            scores = keys @ q[token, head].double() / math.sqrt(d)
            out[token, head] = (scores.exp() / scores.exp().sum()) @ values
    return out


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> GPTConfig:
    return GPTConfig.from_folder(tiny_base(tmp_path_factory.mktemp("base")))


@pytest.fixture(scope="module")
def sequences(config: GPTConfig) -> list[tuple[Tensor, Tensor, Tensor]]:
    random_numbers = torch.Generator().manual_seed(3)

    def some(length: int, heads: int) -> Tensor:
        return torch.randn(length, heads, config.head_dim, generator=random_numbers)

    return [(some(length, config.heads), some(length, config.kv_heads), some(length, config.kv_heads)) for length in LENGTHS]


@pytest.mark.parametrize("window", [None, 5])
def test_whole_sequences_packed_together(sequences: list[tuple[Tensor, Tensor, Tensor]], window: int | None) -> None:
    q, k, v = (torch.cat(parts) for parts in zip(*sequences, strict=True))

    out = CausalAttention(LENGTHS)(0, q, k, v, window=window)

    expected = torch.cat([written_out(*sequence, window) for sequence in sequences])
    assert (out - expected).abs().max() < 1e-5


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("seed", range(5))
def test_steps_over_the_paged_cache(
    config: GPTConfig, sequences: list[tuple[Tensor, Tensor, Tensor]], window: int | None, seed: int
) -> None:
    """In steps of any chunks, with blocks in any order."""
    chance = random.Random(seed)
    blocks = list(range(1, 1 + sum(-(-length // BLOCK) for length in LENGTHS)))
    chance.shuffle(blocks)
    owned = [[blocks.pop() for _ in range(-(-length // BLOCK))] for length in LENGTHS]
    store = KeyValueStore(config, blocks=max(max(its) for its in owned), block_size=BLOCK, dtype=torch.float32, device=torch.device("cpu"))
    done, outs = [0] * len(LENGTHS), [torch.empty_like(q) for q, _, _ in sequences]

    while any(at < length for at, length in zip(done, LENGTHS, strict=True)):
        counts = [min(chance.choice([0, 1, 1, 3, 8]), length - at) for at, length in zip(done, LENGTHS, strict=True)]
        taking = [number for number, count in enumerate(counts) if count]
        if not taking:
            continue
        pieces = [Piece(done[n], counts[n], owned[n][: -(-(done[n] + counts[n]) // BLOCK)]) for n in taking]
        q, k, v = (torch.cat([sequences[n][part][done[n] : done[n] + counts[n]] for n in taking]) for part in range(3))
        out = PagedAttention(store, pieces)(0, q, k, v, window=window)
        for n, rows in zip(taking, out.split([counts[n] for n in taking]), strict=True):
            outs[n][done[n] : done[n] + counts[n]] = rows
            done[n] += counts[n]

    for out, sequence in zip(outs, sequences, strict=True):
        assert (out - written_out(*sequence, window)).abs().max() < 1e-5
