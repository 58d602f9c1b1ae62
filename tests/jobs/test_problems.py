"""Every problem a worker can find in a data file has a sentence, and every name in a data report its word."""

from __future__ import annotations

import pytest
from django.utils import translation

from inference import suites
from inference.datasets import Use
from inference.findings import Kind
from inference.mentions import WORDS
from inference.problems import ProblemCode
from inference.records import Format
from inference.scripts import BLOCKS
from inference.sources import Container
from store.jobs import findings, formats, problems

DETAIL = {
    "message": 2,
    "messages": 300,
    "limit": 200,
    "limit_bytes": 1000,
    "field": "prompt",
    "role": "robot",
    "expected": "user",
    "characters": 9,
    "character": "U+0007",
    "tokens": 70,
    "cells": 3,
    "columns": 2,
    "format": "chat",
    "first": "text",
    "use": "text",
    "choices": 3,
}


@pytest.mark.parametrize("code", list(ProblemCode))
@pytest.mark.parametrize("language", ["en", "zh-hans"])
def test_every_problem_has_a_sentence_with_all_its_values(code: str, language: str) -> None:
    with translation.override(language):
        shown = problems.shown({"line": 1, "column": 1, "code": code, "message": "as the worker says it", "detail": DETAIL})

    assert shown.sentence not in ("", "as the worker says it")
    assert "%(" not in shown.sentence


def test_whatever_a_worker_names_has_a_word() -> None:
    assert set(findings.KINDS) == set(Kind)
    assert set(findings.SCRIPTS) == {script for _first, _last, script in BLOCKS}
    assert {*findings.AXES} == {*WORDS}
    assert {*findings.GROUPS} == {group for groups in WORDS.values() for group in groups}
    assert (set(formats.FORMATS), set(formats.CONTAINERS), set(formats.TAKES)) == (set(Format), set(Container), set(Use))
    assert set(formats.ITEMS) == {suites.Kind.QUESTIONS, suites.Kind.CHOICES, suites.Kind.TEXTS}
