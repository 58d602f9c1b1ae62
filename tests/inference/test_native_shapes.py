"""Steps of models of any shape, in any mixture, on what every kind of processor compiles: the same bits, and nobody else's numbers."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor

from inference import native
from inference.attention import CausalAttention, Piece
from inference.building import built
from inference.cache import BLOCK_SIZE
from inference.checkpoint import load_gpt
from inference.config import GPTConfig
from inference.lora import Adapter, layout_of
from inference.naming import projection_shapes
from inference.native import NativeRunner
from inference.runner import TorchRunner
from tests.inference.tiny import tiny_base

LENGTHS = (1, 15, 16, 17, 31, 33, 64, 65, 100, 193, 230)
CHUNKS = (1, 1, 2, 7, 15, 16, 17, 31, 32, 33, 64, 96, 191)
WIDTHS = {"as for this processor": [], "without AMX": ["-DWITHOUT_AMX"], "without AVX-512": ["-mno-avx512f"], "without AVX2": ["-mno-avx2"]}


@pytest.fixture(params=WIDTHS)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ctypes.CDLL:
    if request.param.endswith(("AVX-512", "AVX2")) and platform.machine() != "x86_64":
        pytest.skip("another kind of processor")
    library = native.opened(built(*WIDTHS[request.param]))
    monkeypatch.setattr(native, "library", lambda: library)
    return library


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def any_shape(random: Random) -> dict[str, Any]:
    """What may stand in config.json: heads that fill more than a tile of queries, rows that fill no vector, windows between blocks."""
    family, kv_heads = random.choice(["llama", "qwen3", "mistral", "gemma3_text"]), random.choice([1, 2, 3])
    shape: dict[str, Any] = {
        "model_type": family,
        "vocab_size": random.choice([33, 97, 448]),
        "hidden_size": 2 * random.choice([3, 17, 32, 65]),
        "intermediate_size": 16 * random.randint(1, 9),
        "num_attention_heads": kv_heads * random.choice([1, 2, 5, 13, 17]),
        "num_key_value_heads": kv_heads,
        "head_dim": random.choice([16, 32, 48, 80, 96]),
        "sliding_window": random.choice([1, 15, 16, 17, 40]),
        "tie_word_embeddings": random.random() < 0.5,
        "attention_bias": family == "llama",
        "mlp_bias": family == "llama",
    }
    if family == "gemma3_text":
        kinds = ["sliding_attention", "full_attention"]
        shape |= {"layer_types": kinds, "query_pre_attn_scalar": 24, "hidden_activation": "gelu_pytorch_tanh"}
    return shape


def any_adapter(random: Random, config: GPTConfig, dtype: torch.dtype) -> Adapter:
    ranks = tuple(random.choice([0, 1, 8, 33]) for _ in projection_shapes(config))
    layout = layout_of(config, (8, *ranks[1:]))
    numbers = torch.randn(layout.size, generator=torch.Generator().manual_seed(random.randrange(1000))) * 0.02
    return Adapter(numbers.to(dtype), layout, max(8, *ranks), layout.size)


def spoiled(adapter: Adapter) -> Adapter:
    return Adapter(torch.full_like(adapter.flat, float("nan")), adapter.layout, adapter.rank, adapter.parameter_count)


def a_runner(folder: Path, dtype: torch.dtype, owned: list[int]) -> NativeRunner:
    """With NaN in every block that is nobody's."""
    runner = NativeRunner(load_gpt(folder, dtype=dtype), max(owned) + 2)
    for store in (runner.keys, runner.values):
        store.fill_(float("nan"))
    runner.zero(owned)
    return runner


def alone(folder: Path, dtype: torch.dtype, tokens: list[int], adapter: Adapter | None) -> Tensor:
    """Hidden states of one sequence in one step of one thread."""
    torch.set_num_threads(1)
    blocks = list(range(1, len(tokens) // BLOCK_SIZE + 2))
    return a_runner(folder, dtype, blocks).hidden(tokens, [Piece(0, len(tokens), blocks)], [adapter])


def mixed(random: Random, folder: Path, dtype: torch.dtype, sequences: list[list[int]], adapters: list[Adapter | None]) -> list[Tensor]:
    """The same of all of them, in chunks that share steps, over blocks in any order, by as many threads as it happens."""
    needed = [len(tokens) // BLOCK_SIZE + 1 for tokens in sequences]
    owned = random.sample(range(1, 2 * sum(needed)), sum(needed))
    left = iter(owned)
    blocks = [list(islice(left, count)) for count in needed]
    runner = a_runner(folder, dtype, owned)
    at = [0] * len(sequences)
    found: list[list[Tensor]] = [[] for _ in sequences]
    while any(done < len(tokens) for done, tokens in zip(at, sequences, strict=True)):
        torch.set_num_threads(random.choice([1, 2, 3]))
        turn = [number for number, tokens in enumerate(sequences) if at[number] < len(tokens) and random.random() < 0.8]
        random.shuffle(turn)
        pieces = [Piece(at[number], min(random.choice(CHUNKS), len(sequences[number]) - at[number]), blocks[number]) for number in turn]
        tokens = [token for number, piece in zip(turn, pieces, strict=True) for token in sequences[number][piece.start : piece.end]]
        hidden = runner.hidden(tokens, pieces, [adapters[number] for number in turn])
        for number, piece, part in zip(turn, pieces, hidden.split([piece.count for piece in pieces]), strict=True):
            found[number].append(part)
            at[number] = piece.end
    return [torch.cat(parts) for parts in found]


@pytest.mark.parametrize("seed", range(12))
def test_each_sequence_gets_its_own_numbers_to_the_bit_whatever_is_computed_beside_it(
    seed: int, tmp_path: Path, library: ctypes.CDLL
) -> None:
    random = Random(seed)
    dtype = [torch.float32, torch.bfloat16, torch.int8][seed % 3]
    folder = tiny_base(tmp_path, **any_shape(random))
    config = GPTConfig.from_folder(folder)
    sequences = [[random.randrange(config.vocab_size) for _ in range(random.choice(LENGTHS))] for _ in range(5)]
    its_dtype = torch.float32 if dtype == torch.float32 else torch.bfloat16
    pair = [any_adapter(random, config, its_dtype) for _ in range(2)]
    adapters = [None, pair[0], spoiled(pair[1]), pair[1], pair[0]]

    found = mixed(random, folder, dtype, sequences, adapters)

    for number, (tokens, adapter) in enumerate(zip(sequences, adapters, strict=True)):
        if number == 2:
            assert found[number].isnan().all()
            continue
        expected = alone(folder, dtype, tokens, adapter)
        assert torch.equal(found[number], expected)
        error, size = (expected - by_torch(folder, dtype, tokens, adapter)).abs(), expected.abs().mean()
        print(f"error {error.mean() / size:.1e} of the numbers' size")  # noqa: T201
        assert error.max() < 1e-3 if dtype == torch.float32 else error.mean() < 0.1 * size


@torch.inference_mode()
def by_torch(folder: Path, dtype: torch.dtype, tokens: list[int], adapter: Adapter | None) -> Tensor:
    model = load_gpt(folder, dtype=dtype)
    if adapter is None:
        hidden: Tensor = model(torch.tensor(tokens), torch.arange(len(tokens)), CausalAttention([len(tokens)]))
        return hidden
    blocks = list(range(1, len(tokens) // BLOCK_SIZE + 2))
    return TorchRunner(model, len(blocks)).hidden(tokens, [Piece(0, len(tokens), blocks)], [adapter])
