"""An engine is given as much cache as fits, and computes in numbers its machine is made for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from inference.checkpoint import load_gpt
from inference.config import GPTConfig
from inference.footprint import (
    ADAPTER_BYTES,
    CACHE_TOKENS,
    DTYPE_BYTES,
    PROCESS_BYTES,
    STACK_BYTES,
    Unfit,
    beside_bytes,
    cache_token_bytes,
    fit,
    native_dtype,
    outlook,
    renderers_bytes,
    weights_bytes,
)
from tests.inference.tiny import tiny_base

ROOT = Path(__file__).parents[2]

TOKEN_BYTES = 2 * 2 * 2 * 16 * 4  # keys and values, 2 layers, 2 heads, 16 wide, float32


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("base"), seed=1)


def test_with_plenty_of_memory_the_cache_has_its_usual_size(base: Path) -> None:
    need = fit(base, budget_bytes=8 * 2**30, options={"dtype": "float32"})

    assert need.options["cache_tokens"] == CACHE_TOKENS
    assert need.options["adapter_bytes"] == ADAPTER_BYTES
    assert need.bytes > PROCESS_BYTES + CACHE_TOKENS * TOKEN_BYTES + ADAPTER_BYTES


@pytest.mark.parametrize("compiler", ["g++", None])
def test_adapters_and_what_torch_copies_of_them_are_stated_and_take_a_part_of_what_is_left(
    base: Path, monkeypatch: pytest.MonkeyPatch, compiler: str | None
) -> None:
    monkeypatch.setattr("inference.building.compiler", lambda: compiler)
    without = fit(base, budget_bytes=2**50, options={"dtype": "float32", "adapter_bytes": 0, "stack_bytes": 0})

    enough = fit(base, budget_bytes=2**50, options={"dtype": "float32"})
    little = fit(base, budget_bytes=without.bytes + 100 * 2**20, options={"dtype": "float32"})

    wanted = ADAPTER_BYTES + (0 if compiler else STACK_BYTES)
    assert enough.bytes - without.bytes == wanted
    room = little.options["adapter_bytes"] + little.options.get("stack_bytes", 0)
    assert 25 * 2**20 < room < 40 * 2**20  # a quarter of what is left beside the smallest cache
    assert little.options["adapter_bytes"] == pytest.approx(room * ADAPTER_BYTES / wanted, abs=2)
    assert little.options["cache_tokens"] == CACHE_TOKENS
    assert little.bytes == without.bytes + room


def test_with_little_memory_the_cache_is_smaller_and_the_budget_is_kept(base: Path) -> None:
    options = {"dtype": "float32"}
    budget = renderers_bytes(base) + beside_bytes(base, GPTConfig.from_folder(base), options) + 4 * 2**20

    need = fit(base, budget_bytes=budget, options=options)

    assert 2048 <= need.options["cache_tokens"] < CACHE_TOKENS
    assert budget - TOKEN_BYTES < need.bytes <= budget


def test_with_too_little_memory_it_is_said_what_is_needed(base: Path) -> None:
    with pytest.raises(Unfit, match=r"needs 4[12]\d MB; this worker may use 300 MB"):
        fit(base, budget_bytes=300 * 2**20, options={"dtype": "float32"})


@pytest.mark.parametrize("dtype", DTYPE_BYTES)
@pytest.mark.parametrize("tied", [True, False])
def test_the_weights_are_as_large_as_stated(tmp_path: Path, dtype: str, tied: bool) -> None:
    folder = tiny_base(tmp_path, tie_word_embeddings=tied)

    model = load_gpt(folder, dtype=getattr(torch, dtype))

    held = sum(tensor.nbytes for tensor in [*model.parameters(), *model.buffers()])
    norms = sum(weight.nbytes for name, weight in model.named_parameters() if "norm" in name)
    assert weights_bytes(model.config, dtype) == pytest.approx(held - norms * (1 - DTYPE_BYTES[dtype] / 4), abs=1)


def test_what_a_base_needs_is_known_before_it_is_loaded(base: Path) -> None:
    config = GPTConfig.from_folder(base)

    known = outlook(base)

    assert known["parameter_count"] == config.parameter_count
    assert known["context_length"] == 2048
    assert known["memory_bytes"].keys() == DTYPE_BYTES.keys()
    for dtype, stated in known["memory_bytes"].items():
        assert stated == fit(base, budget_bytes=2**50, options={"dtype": dtype, "adapter_bytes": 0, "stack_bytes": 0}).bytes
    assert cache_token_bytes(config, "float32") == TOKEN_BYTES == 2 * cache_token_bytes(config, "int8")


@pytest.mark.real_model
def test_the_real_model_takes_the_memory_that_is_stated(smollm2_folder: Path) -> None:
    """The weights are in memory once, also where they are packed; and what loading freed is given back."""
    tokens = 512
    command = [sys.executable, "-m", "benchmarks.memory", str(smollm2_folder), "--cache-tokens", str(tokens), "--child", "int8"]
    environment = os.environ | {"OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": "1"}

    said = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout

    config = GPTConfig.from_folder(smollm2_folder)
    stated = weights_bytes(config, "int8") + tokens * cache_token_bytes(config, "int8") + beside_bytes(smollm2_folder, config, {})
    assert json.loads(said.splitlines()[-1])["VmRSS"] == pytest.approx(stated, rel=0.1)


@pytest.mark.parametrize(
    ("line", "dtype"),
    [
        ("flags : fpu avx2 avx512f avx512_bf16", "bfloat16"),
        ("flags : fpu avx2 avx512f", "float32"),
        ("Features : fp asimd bf16", "bfloat16"),
        ("model name : bf16", "float32"),
    ],
)
def test_bfloat16_is_for_processors_that_have_it(tmp_path: Path, line: str, dtype: str) -> None:
    (tmp_path / "cpuinfo").write_text(line + "\n")

    nothing = tmp_path / "nothing"

    assert native_dtype(cpu_info=tmp_path / "cpuinfo", gpu=nothing) == dtype
    assert native_dtype("cpu", cpu_info=tmp_path / "cpuinfo", gpu=tmp_path) == dtype
    assert native_dtype(cpu_info=nothing, gpu=nothing) == "float32"
    assert native_dtype(cpu_info=nothing, gpu=tmp_path) == "bfloat16"
