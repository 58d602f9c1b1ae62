"""Attention over block tables as the CUDA kernel is asked for it, beside the attention that gathers blocks."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from inference.attention import KeyValueStore, PagedAttention, Piece
from inference.config import GPTConfig
from inference.flash_runner import FlashRunner
from inference.runner import TorchRunner
from inference.varlen import PAGE_SIZE, StepTables, UnfitForKernel, VarlenAttention, check_pages, kernel_refusal, shape_refusal
from tests.inference.asking import PROMPTS, a_request, an_engine_with, run, texts
from tests.inference.flash import DEVICES, NAN, kernel_of, written_out_kernel
from tests.inference.tiny import tiny_base

LENGTHS = [1, 7, 300, 517, 256]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def config(folder: Path) -> GPTConfig:
    return GPTConfig.from_folder(folder)


def steps(chance: random.Random, owned: list[list[int]]) -> Iterator[list[tuple[int, Piece]]]:
    """Chunks and single tokens of all sequences until each is computed: (sequence, piece)."""
    done = [0] * len(LENGTHS)
    while any(at < length for at, length in zip(done, LENGTHS, strict=True)):
        counts = [min(chance.choice([0, 1, 1, 3, 100]), length - at) for at, length in zip(done, LENGTHS, strict=True)]
        if any(counts):
            yield [(n, Piece(done[n], count, owned[n][: -(-(done[n] + count) // PAGE_SIZE)])) for n, count in enumerate(counts) if count]
        done = [at + count for at, count in zip(done, counts, strict=True)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("window", [None, 5, 280])
def test_any_chunks_and_single_tokens_together_see_what_they_saw_before(
    config: GPTConfig, window: int | None, kv_heads: int, device: str
) -> None:
    """Everything that belongs to nobody in the step is NaN: blocks, block 0, and rows of the output before they are written."""
    chance, numbers = random.Random(kv_heads), torch.Generator().manual_seed(3)
    dtype, tolerance = (torch.float32, 1e-5) if device == "cpu" else (torch.bfloat16, 2e-2)
    config = replace(config, kv_heads=kv_heads)
    blocks = chance.sample(range(1, 21), 20)
    owned = [[blocks.pop() for _ in range(-(-length // PAGE_SIZE))] for length in LENGTHS]
    gathered, tabled = (
        KeyValueStore(config, blocks=20, block_size=PAGE_SIZE, dtype=dtype, device=torch.device(device), by_head=by_head)
        for by_head in (True, False)
    )
    strangers = [0, *blocks]
    tabled.keys[:, strangers], tabled.values[:, strangers] = NAN, NAN

    for step in steps(chance, owned):
        pieces = [piece for _, piece in step]
        n = sum(piece.count for piece in pieces)
        q, k, v = (
            torch.randn(n, heads, config.head_dim, generator=numbers).to(device, dtype) for heads in (config.heads, kv_heads, kv_heads)
        )
        expected = PagedAttention(gathered, pieces)(1, q, k, v, window=window)
        got = VarlenAttention(tabled, StepTables.of(pieces, tabled), kernel_of(device))(1, q, k, v, window=window)

        assert got.isfinite().all()
        assert (got - expected).abs().max() < tolerance


def test_an_engine_answers_the_same_over_pages_as_over_blocks(folder: Path) -> None:
    usual = an_engine_with(folder, TorchRunner)
    paged = an_engine_with(folder, partial(FlashRunner, kernel=written_out_kernel))
    expected = texts(run(usual, *(a_request(prompt) for prompt in PROMPTS)))

    assert texts(run(paged, *(a_request(prompt) for prompt in PROMPTS))) == expected
    assert (paged.stats()["block_tokens"], paged.stats()["blocks_total"]) == (PAGE_SIZE, 4096 // PAGE_SIZE)
    assert paged.context_length == usual.context_length


def test_an_engine_over_pages_finds_a_prompts_full_pages_again(folder: Path) -> None:
    engine = an_engine_with(folder, partial(FlashRunner, kernel=written_out_kernel))

    first, again = (run(engine, a_request("Tell me " * 300))[0].finished.usage for _ in range(2))

    assert first["cached_tokens"] == 0
    assert again["cached_tokens"] == first["prompt_tokens"] // PAGE_SIZE * PAGE_SIZE > 0


def test_blocks_the_kernel_cannot_read_are_refused_when_the_model_is_loaded(config: GPTConfig) -> None:
    store = KeyValueStore(config, blocks=2, block_size=16, dtype=torch.bfloat16, device=CPU)

    with pytest.raises(UnfitForKernel, match="multiple of 256 tokens; the blocks of this store have 16"):
        check_pages(store)


def test_what_the_kernel_cannot_compute_is_said_by_name(config: GPTConfig) -> None:
    assert shape_refusal(config, dtype=torch.bfloat16) is None
    assert "not in float32" in (shape_refusal(config, dtype=torch.float32) or "")
    assert "this model's have 320" in (shape_refusal(replace(config, head_dim=320), dtype=torch.bfloat16) or "")
    assert "this model's have 20" in (shape_refusal(replace(config, head_dim=20), dtype=torch.bfloat16) or "")
    assert "not on cpu" in (kernel_refusal(config, dtype=torch.bfloat16, device=CPU) or "")
