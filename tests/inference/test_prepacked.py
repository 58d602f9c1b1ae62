"""A model laid out for serving gives what it gave before, with adapters and in every kind of number."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from inference.attention import Piece
from inference.checkpoint import load_gpt
from inference.config import GPTConfig
from inference.lora import Adapter
from inference.prepacked import Prepacked, can_prepack, prepack, prepacked_runner
from inference.runner import TorchRunner
from tests.inference.test_model import FAMILIES, random_model
from tests.inference.tiny import tiny_adapter, tiny_base

TOKENS = torch.randint(0, 97, (40,), generator=torch.Generator().manual_seed(0)).tolist()
BLOCKS, OTHERS = [3, 1, 5], [2, 6, 4]
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.05, torch.int8: 0.05}  # of the largest logit


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_model(request.param, tmp_path_factory.mktemp(request.param))


@torch.inference_mode()
def logits_of(runner: TorchRunner, adapters: Sequence[Adapter | None] | None = None) -> torch.Tensor:
    """Of two sequences: a chunk of each, then the last token of both together."""
    runner.hidden(TOKENS[:39] + TOKENS[:19], [Piece(0, 39, BLOCKS), Piece(0, 19, OTHERS)], adapters)
    return runner.logits(runner.hidden([TOKENS[39], TOKENS[19]], [Piece(39, 1, BLOCKS), Piece(19, 1, OTHERS)], adapters))


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_every_family_gives_what_it_gave(folder: Path, dtype: torch.dtype) -> None:
    expected = logits_of(TorchRunner(load_gpt(folder, dtype=dtype), 8))

    found = logits_of(prepacked_runner(load_gpt(folder, dtype=dtype), 8))

    assert (found - expected).abs().max() < TOLERANCE[dtype] * expected.abs().max()


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_adapters_reach_the_projections_that_stand_side_by_side(tmp_path: Path, dtype: torch.dtype) -> None:
    base = tiny_base(tmp_path / "base")
    targets = ["q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "down_proj"]
    config = GPTConfig.from_folder(base)
    adapter = Adapter.load(tiny_adapter(tmp_path / "adapter", base, target_modules=targets), config, dtype=torch.float32)

    expected = logits_of(TorchRunner(load_gpt(base, dtype=dtype), 8), [adapter, None])
    found = logits_of(prepacked_runner(load_gpt(base, dtype=dtype), 8), [adapter, None])
    without = logits_of(prepacked_runner(load_gpt(base, dtype=dtype), 8))

    assert (found - expected).abs().max() < TOLERANCE[dtype] * expected.abs().max()
    assert (found[0] - without[0]).abs().max() > 0.1 * without.abs().max()


def test_matrices_are_packed_where_the_processor_multiplies_bfloat16(tmp_path: Path) -> None:
    model = load_gpt(tiny_base(tmp_path), dtype=torch.bfloat16)

    prepack(model)

    packs = can_prepack(torch.bfloat16)
    parts = [*model.layers.modules(), *(part for layer in model.layers for part in layer.together.values())]  # type: ignore[union-attr]
    packed = [module for part in parts for module in part.modules() if isinstance(module, Prepacked)]
    assert {names for layer in model.layers for names in layer.together} == {("q", "k", "v")} | (set() if packs else {("gate", "up")})
    assert len(set(packed)) == (5 * model.config.layers if packs else 0)
    assert isinstance(model.packed_head, Prepacked) == packs


ROWS_BY_ROWS = """
import sys
from pathlib import Path
import torch
from inference.checkpoint import load_gpt
from inference.attention import Piece
from inference.prepacked import prepacked_runner

def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


runner = prepacked_runner(load_gpt(Path(sys.argv[1]), dtype=torch.bfloat16), 20)
for number in range(240):
    rows = number * 37 % 241 + 1
    runner.hidden([1] * rows, [Piece(0, rows, range(1, 17))], None)
    if number == 60:
        before = resident_bytes()
print((resident_bytes() - before) // 2**20)
"""


def test_memory_does_not_grow_with_every_number_of_rows_that_comes(tmp_path: Path) -> None:
    base = tiny_base(tmp_path, hidden_size=256, intermediate_size=512)
    command = [sys.executable, "-c", ROWS_BY_ROWS, str(base)]

    grown_mib = int(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)

    assert grown_mib < 128  # 60 to 75; 230 to 340 where everything is kept
