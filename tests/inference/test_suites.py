"""Suites: the store's own, and a publisher's file with every wrong line named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from inference import suites
from inference.__main__ import SUITES
from inference.suites import BUILT_IN, Asked, Choice, Kind, SuiteRefused, Text

QUESTION = {"prompt": "Where is Oslo?", "expected": "Norway"}
CHOICE = {"context": "Ice is", "choices": ["cold", "hot"], "answer": 0}


def file_of(folder: Path, *lines: Any) -> Path:
    path = folder / "suite.jsonl"
    path.write_bytes(b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines))
    return path


@pytest.mark.parametrize("name", list(BUILT_IN))
def test_the_stores_own_suites_can_be_read_and_are_named_by_their_content(name: str) -> None:
    suite = suites.built_in(name)

    assert len(suite.items) >= 4
    assert suite.metrics
    assert len(suite.sha256) == 64
    assert suites.built_in(name) == suite


def test_no_item_stands_in_a_suite_twice_and_the_right_choices_stand_everywhere() -> None:
    for name in BUILT_IN:
        items = suites.built_in(name).items
        assert len(set(map(repr, items))) == len(items), name

    places = [item.answer for name in ("knowledge", "code") for item in suites.built_in(name).items if isinstance(item, Choice)]
    assert set(places) == {0, 1, 2, 3}


def test_the_command_line_names_all_of_them() -> None:
    assert list(SUITES) == list(BUILT_IN)


def test_questions_choices_and_texts_are_read(tmp_path: Path) -> None:
    asked = suites.read(
        file_of(tmp_path, {**QUESTION, "system": "Be brief."}, {"messages": [{"role": "user", "content": "Hi"}], "expected": ["a", "b"]})
    )
    chosen = suites.read(file_of(tmp_path, CHOICE))
    texts = suites.read(file_of(tmp_path, {"text": "The sea."}))

    assert (asked.kind, chosen.kind, texts.kind) == (Kind.QUESTIONS, Kind.CHOICES, Kind.TEXTS)
    assert asked.items[0] == Asked([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where is Oslo?"}], ("Norway",))
    assert isinstance(asked.items[1], Asked)
    assert asked.items[1].expected == ("a", "b")
    assert chosen.items == (Choice("Ice is", ("cold", "hot"), 0),)
    assert texts.items == (Text("The sea."),)
    assert asked.metrics == ("f1", "exact_match", "rouge_l", "chrf")


def test_another_line_or_another_file_is_another_suite(tmp_path: Path) -> None:
    one = suites.read(file_of(tmp_path, QUESTION))
    two = suites.read(file_of(tmp_path, QUESTION, QUESTION | {"prompt": "And Rome?"}))

    assert one.sha256 != two.sha256
    assert two.first(1).items == one.items
    assert two.first(1).sha256 == two.sha256


@pytest.mark.parametrize(
    ("line", "column", "code"),
    [
        (b"{oops", 2, "not_json"),
        (b"\xff{}", 1, "not_utf8"),
        ([1], 1, "not_an_object"),
        ({"question": "Why?"}, 1, "unknown_item"),
        ({"prompt": "Why?"}, 1, "field_missing"),
        ({"prompt": "Why?", "expected": ""}, 32, "field_empty"),
        ({"prompt": "Why?", "expected": 7}, 32, "wrong_expected"),
        ({"prompt": 3, "expected": "x"}, 12, "field_not_text"),
        ({"messages": [{"role": "robot", "content": "x"}], "expected": "x"}, 15, "unknown_role"),
        (CHOICE | {"choices": ["one"]}, 34, "wrong_choices"),
        (CHOICE | {"answer": 2}, 61, "wrong_answer"),
        (CHOICE | {"answer": True}, 61, "wrong_answer"),
        (CHOICE, 1, "mixed_formats"),
    ],
)
def test_a_wrong_line_is_told_with_its_place_and_reason(tmp_path: Path, line: Any, column: int, code: str) -> None:
    with pytest.raises(SuiteRefused) as refused:
        suites.read(file_of(tmp_path, QUESTION, line))

    (problem,) = refused.value.problems
    assert (problem.line, problem.column, problem.code) == (2, column, code)


def test_a_file_of_many_wrong_lines_tells_the_first_hundred_and_counts_all(tmp_path: Path) -> None:
    with pytest.raises(SuiteRefused) as refused:
        suites.read(file_of(tmp_path, *[{"prompt": "Why?"}] * 130))

    assert (len(refused.value.problems), refused.value.count) == (100, 130)


@pytest.mark.parametrize(("lines", "code"), [((), "no_examples"), (({"text": "a"},) * 2001, "too_many_examples")])
def test_a_file_with_nothing_in_it_or_too_much_is_refused(tmp_path: Path, lines: tuple[Any, ...], code: str) -> None:
    with pytest.raises(SuiteRefused) as refused:
        suites.read(file_of(tmp_path, *lines))

    assert [problem.code for problem in refused.value.problems] == [code]
