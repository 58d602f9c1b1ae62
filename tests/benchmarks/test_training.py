"""The benchmarks of training: who is compared, and that padding changes what is computed and not what is learned."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.packing import batches, lengths, padded
from benchmarks.training import Bench, Measured, table
from inference.examples import Example


@pytest.fixture
def bench() -> Bench:
    return Bench(Path(), batch=2, length=50, steps=1, rounds=2, threads=1, micro_batch=0, dtypes=["float32"], theirs=["float32"])


def test_ratios_are_taken_within_a_round_and_memory_beside_them(bench: Bench) -> None:
    ours = Measured([1.0, 4.0], [2.0, 6.0], [[2.0], [1.5]], peak_bytes=2**30)
    theirs = Measured([2.0, 6.0], [3.0, 9.0], [[2.001], [1.5]], peak_bytes=2**31)

    said = table({"ours, float32": ours, "Trainer, float32": theirs}, bench)

    assert "| Trainer, float32 | 25 | 1.75 | 1.50 | 2.00 | 0.50 | 0.0010 |" in said


@pytest.mark.parametrize(("losses", "apart"), [([[2.1], [1.5]], "0.1000"), ([[2.0, 1.0], [1.5]], "inf")])
def test_a_side_with_other_losses_is_not_compared(bench: Bench, losses: list[list[float]], apart: str) -> None:
    ours, theirs = Measured([1.0, 1.0], [1.0, 1.0], [[2.0], [1.5]], 1), Measured([9.0, 9.0], [9.0, 9.0], losses, 1)

    said = table({"ours, float32": ours, "Trainer, float32": theirs}, bench)

    assert f"| not compared |  | 0.00 | 1.00 | {apart} |" in said


def test_the_mix_of_lengths_is_mostly_short_with_a_long_tail_and_always_the_same() -> None:
    drawn = lengths(1000, seed=1)

    assert drawn == lengths(1000, seed=1)
    assert (min(drawn), max(drawn)) == (16, 512)
    assert sorted(drawn)[500] == pytest.approx(120, rel=0.1)


def test_padding_adds_tokens_that_are_not_learned() -> None:
    examples = [Example((1,) * n, (True,) * n) for n in (3, 7, 5)]

    first, second = (padded(batch) for batch in batches(examples, 2))

    assert [len(example.tokens) for example in first + second] == [7, 7, 5]
    assert [example.trained_tokens for example in first + second] == [3, 7, 5]
