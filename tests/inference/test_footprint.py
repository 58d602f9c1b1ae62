"""An engine is given as much cache as fits, and computes in numbers its machine is made for."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference.footprint import CACHE_TOKENS, PROCESS_BYTES, Unfit, fit, native_dtype
from tests.inference.tiny import tiny_base

TOKEN_BYTES = 2 * 2 * 2 * 16 * 4  # keys and values, 2 layers, 2 heads, 16 wide, float32


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("base"), seed=1)


def test_with_plenty_of_memory_the_cache_has_its_usual_size(base: Path) -> None:
    need = fit(base, budget_bytes=8 * 2**30, options={"dtype": "float32"})

    assert need.options == {"dtype": "float32", "cache_tokens": CACHE_TOKENS}
    assert need.bytes > PROCESS_BYTES + CACHE_TOKENS * TOKEN_BYTES


def test_with_little_memory_the_cache_is_smaller_and_the_budget_is_kept(base: Path) -> None:
    budget = PROCESS_BYTES + 4 * 2**20

    need = fit(base, budget_bytes=budget, options={"dtype": "float32"})

    assert 2048 <= need.options["cache_tokens"] < CACHE_TOKENS
    assert budget - TOKEN_BYTES < need.bytes <= budget


def test_with_too_little_memory_it_is_said_what_is_needed(base: Path) -> None:
    with pytest.raises(Unfit, match=r"needs 40\d MB; this worker may use 300 MB"):
        fit(base, budget_bytes=300 * 2**20, options={"dtype": "float32"})


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
