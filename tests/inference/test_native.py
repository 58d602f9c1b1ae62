"""The C++ path beside the torch model it stands in for: the same numbers, to the bit in any batch."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from inference import building, native
from inference.attention import CausalAttention, Piece
from inference.building import built
from inference.checkpoint import load_gpt
from inference.config import GPTConfig
from inference.lora import Adapter
from inference.model import GPT, PositionOutOfContext
from inference.native import NativeRunner, fastest_runner, fits, pack
from inference.prepacked import prepacked_runner
from inference.quantised import Int8Embedding, Int8Linear, Int8Rows
from inference.runner import TorchRunner
from tests.inference.test_model import FAMILIES, random_model
from tests.inference.tiny import tiny_adapter, tiny_base

TOKENS = torch.randint(0, 97, (50,), generator=torch.Generator().manual_seed(0)).tolist()
OTHERS = torch.randint(0, 97, (23,), generator=torch.Generator().manual_seed(1)).tolist()
BLOCKS, OTHER_BLOCKS = [7, 2, 9, 4], [1, 3]


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_model(request.param, tmp_path_factory.mktemp(request.param))


def a_runner(folder: Path, dtype: torch.dtype = torch.float32) -> NativeRunner:
    return NativeRunner(load_gpt(folder, dtype=dtype), 12)


def whole(model: GPT, tokens: list[int]) -> torch.Tensor:
    """The model's own logits, float32 [n, vocabulary]."""
    with torch.inference_mode():
        hidden = model(torch.tensor(tokens), torch.arange(len(tokens)), CausalAttention([len(tokens)]))
        return model.logits(hidden).float()


def in_chunks(runner: NativeRunner, tokens: list[int], blocks: list[int], ends: list[int]) -> torch.Tensor:
    """Hidden states of one sequence computed in parts that end at `ends`."""
    parts = []
    for start, end in itertools.pairwise([0, *ends]):
        parts.append(runner.hidden(tokens[start:end], [Piece(start, end - start, blocks)], None))
    return torch.cat(parts)


def test_logits_are_those_of_the_torch_model(folder: Path) -> None:
    model = load_gpt(folder, dtype=torch.float32)
    expected = whole(model, TOKENS)

    runner = a_runner(folder)
    logits = runner.logits(in_chunks(runner, TOKENS, BLOCKS, [20, 33, 34, 50]))

    assert (logits - expected).abs().max() < 1e-4


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma3"])  # each activation there is
def test_inner_states_far_from_zero_are_activated_as_by_torch(family: str, tmp_path: Path, library: ctypes.CDLL) -> None:
    folder = random_model(family, tmp_path)
    model = with_large_inner_states(load_gpt(folder, dtype=torch.float32))
    expected = whole(model, TOKENS)

    runner = NativeRunner(with_large_inner_states(load_gpt(folder, dtype=torch.float32)), 12)
    logits = runner.logits(in_chunks(runner, TOKENS, BLOCKS, [50]))

    assert (logits - expected).abs().max() < 1e-3


def with_large_inner_states(model: GPT) -> GPT:
    """The model with what goes into the activations a thousand times as large, some thousands, and what comes out as small."""
    for layer in model.layers:
        layer.projections["gate" if model.config.gated else "up"].weight.data *= 1000
        layer.projections["down"].weight.data /= 1000
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
def test_a_token_is_the_same_to_the_bit_alone_in_a_batch_and_in_any_chunks(folder: Path, dtype: torch.dtype) -> None:
    runner = a_runner(folder, dtype)
    alone = in_chunks(runner, TOKENS, BLOCKS, [50])

    one_by_one = in_chunks(runner, TOKENS, BLOCKS, list(range(1, 51)))
    runner.hidden(TOKENS[:49] + OTHERS[:10], [Piece(0, 49, BLOCKS), Piece(0, 10, OTHER_BLOCKS)], None)
    together = runner.hidden(OTHERS[10:] + TOKENS[49:], [Piece(10, 13, OTHER_BLOCKS), Piece(49, 1, BLOCKS)], None)

    three = [Piece(0, 50, BLOCKS), Piece(0, 23, OTHER_BLOCKS), Piece(0, 50, [5, 6, 8, 10])]
    many = runner.hidden(TOKENS + OTHERS + TOKENS, three, None)

    assert torch.equal(one_by_one, alone)
    assert torch.equal(together[-1], alone[-1])
    assert torch.equal(many[:50], alone)
    assert torch.equal(many[-50:], alone)


@pytest.fixture(params=["as for this processor", "without AMX", "without pairs"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ctypes.CDLL:
    """What processors with tiles or with instructions for bfloat16 compile, if this is one, and what all others do."""
    flags = {"without AMX": ["-DWITHOUT_AMX"], "without pairs": ["-DWITHOUT_PAIRS"]}
    library = native.opened(built(*flags.get(request.param, [])))
    monkeypatch.setattr(native, "library", lambda: library)
    return library


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_many_tokens_are_the_same_to_the_bit_however_threads_share_them(
    folder: Path, dtype: torch.dtype, threads: Callable[[int], None]
) -> None:
    all_of = min(391, load_gpt(folder, dtype=dtype).config.context_length)  # without tiles several groups for each thread
    tokens, blocks = (TOKENS * 8)[:all_of], list(range(1, 26))
    threads(1)
    expected = in_chunks(NativeRunner(load_gpt(folder, dtype=dtype), 26), tokens, blocks, [20, 83, all_of])

    for count, ends in ((2, [all_of]), (3, [100, all_of]), (2, [60, 125, all_of])):
        threads(count)
        found = in_chunks(NativeRunner(load_gpt(folder, dtype=dtype), 26), tokens, blocks, ends)
        assert torch.equal(found, expected), (count, ends)


@pytest.mark.parametrize("kept", [torch.bfloat16, torch.int8])
def test_narrow_weights_cost_what_rounding_their_inputs_does_and_nothing_more(
    folder: Path, kept: torch.dtype, library: ctypes.CDLL
) -> None:
    theirs = load_gpt(folder, dtype=kept)
    exact = whole(widened(load_gpt(folder, dtype=kept)), TOKENS)

    runner = NativeRunner(load_gpt(folder, dtype=kept), 12)
    logits = runner.logits(in_chunks(runner, TOKENS, BLOCKS, [50]))

    error, error_of_torch = ((found - exact).abs().mean() for found in (logits, whole(theirs, TOKENS)))
    print(f"error {error:.1e}, of torch {error_of_torch:.1e}")  # noqa: T201
    # Keys and values are rounded, and where the processor multiplies bfloat16 what goes into a product; torch rounds what comes out too.
    assert error < (1.1 if library.rounds_inputs() else 0.7) * error_of_torch


def widened(model: GPT) -> GPT:
    """The model with the same numbers in float32."""
    for parent in list(model.modules()):
        for name, module in list(parent.named_children()):
            if isinstance(module, Int8Rows):
                weight = module.weight.float() * module.scale[:, None]
                wide = torch.nn.Embedding(*weight.shape) if isinstance(module, Int8Embedding) else torch.nn.Linear(*weight.shape[::-1])
                wide.weight.data = weight
                if isinstance(module, Int8Linear):
                    wide.register_parameter("bias", None if module.bias is None else torch.nn.Parameter(torch.as_tensor(module.bias)))
                parent.register_module(name, wide)
    return model.float()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("count", [1, 2, 3, 5, 6, 7, 12, 13, 16, 17, 31, 32, 33, 65])
def test_a_product_of_any_height_and_of_outputs_that_fill_no_panel(count: int, dtype: torch.dtype, library: ctypes.CDLL) -> None:
    random = torch.Generator().manual_seed(count)
    weight = torch.randn(83, 34, generator=random).to(dtype)
    x = torch.randn(count, 34, generator=random)

    found = multiplied(library, weight, x)

    if library.rounds_inputs() and dtype == torch.bfloat16:
        x = x.bfloat16().float()
    assert (found - x @ weight.float().t()).abs().max() < 1e-4


def test_a_product_of_no_tokens_reads_none(library: ctypes.CDLL) -> None:
    weight = torch.zeros(1024, 2**15, dtype=torch.bfloat16)

    assert multiplied(library, weight, torch.empty(0, 2**15)).shape == (0, 1024)  # what would be read ends far behind what is there


def multiplied(library: ctypes.CDLL, weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    packed, y = pack(weight), torch.empty(len(x), len(weight))
    matrix = native._Matrix(packed.data_ptr(), None, None, *weight.shape, native.KINDS[weight.dtype])
    library.multiply(
        ctypes.byref(matrix), ctypes.c_void_p(x.data_ptr()), ctypes.c_void_p(y.data_ptr()), ctypes.c_int64(len(x)), ctypes.c_int32(2)
    )
    return y


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_adapters_of_a_mixed_batch_add_what_each_adds_alone(tmp_path: Path, dtype: torch.dtype) -> None:
    base = tiny_base(tmp_path / "base")
    every = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    folders = [
        tiny_adapter(tmp_path / "narrow", base, rank=4),
        tiny_adapter(tmp_path / "wide", base, seed=2, rank=20, target_modules=every),
    ]
    config = GPTConfig.from_folder(base)
    narrow, wide = (Adapter.load(folder, config, dtype=dtype) for folder in folders)
    pieces, tokens = [Piece(0, 20, [1, 2]), Piece(0, 1, [3]), Piece(0, 9, [4]), Piece(0, 3, [5])], TOKENS[:33]
    adapters = [wide, None, narrow, wide]

    with torch.inference_mode():
        runner = TorchRunner(load_gpt(base, dtype=torch.float32), 12)
        expected = runner.hidden(tokens, pieces, adapters)
    native_runner = NativeRunner(load_gpt(base, dtype=torch.float32), 12)
    found = native_runner.hidden(tokens, pieces, adapters)
    plain = native_runner.hidden(tokens, pieces, None)

    assert (found - expected).abs().max() < 1e-4
    assert [torch.equal(a, b) for a, b in zip(found, plain, strict=True)] == [False] * 20 + [True] + [False] * 12


@pytest.mark.parametrize("piece", [Piece(63, 2, [1, 2, 3, 4, 5]), Piece(-1, 2, [1])])
def test_a_position_outside_the_context_is_refused_by_number(tmp_path: Path, piece: Piece) -> None:
    runner = a_runner(tiny_base(tmp_path, max_position_embeddings=64))

    with pytest.raises(PositionOutOfContext, match=r"positions (63 to 64|-1 to 0) are not all inside the model's context of 64"):
        runner.hidden([5, 6], [piece], None)


def test_where_there_is_no_compiler_the_torch_path_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_gpt(tiny_base(tmp_path), dtype=torch.float32)
    native.library.cache_clear()
    monkeypatch.setenv("INFERENCE_NATIVE", "0")

    chosen = fastest_runner(model)

    native.library.cache_clear()
    assert chosen is prepacked_runner
    with pytest.raises(building.NotBuilt, match="INFERENCE_NATIVE"):
        building.built()


def test_a_compiler_that_fails_is_told_with_what_it_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken.cpp"
    broken.write_text("int main( {", encoding="utf-8")
    monkeypatch.setattr(building, "SOURCE", broken)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    with pytest.raises(building.NotBuilt, match="error"):
        building.built()

    assert not list(tmp_path.rglob("*.so"))


def test_a_model_whose_heads_fill_no_panel_is_left_to_torch(tmp_path: Path) -> None:
    assert not fits(load_gpt(tiny_base(tmp_path, head_dim=12), dtype=torch.float32))
