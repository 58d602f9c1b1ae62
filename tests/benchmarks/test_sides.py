from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import sides
from benchmarks.sides import NATIVE, OURS, PURE, Child, Program, Side, SideFailed

SCRIPTED = Program("tests.benchmarks.scripted_side")
Start = Callable[..., Child]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Start]:
    monkeypatch.setattr(sides, "LOGS", tmp_path)
    begun: list[Child] = []

    def started(*, column: str = PURE, **options: Any) -> Child:
        begun.append(Child(Side(OURS, "float32", column), SCRIPTED, {"load": "well", "threads": 3, **options}))
        return begun[-1]

    yield started
    for child in begun:
        child.close()


def test_a_side_has_the_threads_it_is_given_and_the_cpp_path_of_its_column(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERENCE_NATIVE", "0")

    assert start(column=PURE).versions == {"threads": "3", "native": "0"}
    assert start(column=NATIVE).versions == {"threads": "3", "native": "default"}


def test_a_side_answers_and_stands_still_until_it_is_asked_again(start: Start) -> None:
    child = start()

    answered = child.generate([[1, 2], [3]], [4, 5])

    assert (answered.tokens, answered.failed) == (9, 0)
    assert _state(child) == "T"


def test_a_side_that_cannot_load_says_why(start: Start) -> None:
    with pytest.raises(SideFailed, match="ValueError: this model is not for me"):
        start(load="refuse")


def test_a_side_killed_by_an_unknown_instruction_is_left_with_that_reason_and_its_last_words(start: Start) -> None:
    child = start()

    with pytest.raises(SideFailed, match="killed by SIGILL, after saying: the last words"):
        child.ask("die")


def test_a_side_whose_environment_is_not_there_names_the_command_that_makes_it() -> None:
    with pytest.raises(SideFailed, match="--install nowhere"):
        Child(Side("nowhere", "float32"), Program("benchmarks.peers.nowhere", "nowhere"), {"threads": 1})


def _state(child: Child) -> str:
    """The kernel's letter for the process's state, once it is no longer running."""
    until = time.monotonic() + 10
    while (state := _letter(child)) in "RSD" and time.monotonic() < until:
        continue
    return state


def _letter(child: Child) -> str:
    return Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0]
