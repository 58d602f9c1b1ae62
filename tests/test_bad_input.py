"""What nobody sends by mistake, in every form and every address of the pages: refused or taken, never a crash, and refused is unchanged.

The addresses and their good forms are those of the access matrix, asked as an owner. Of each form every field is spoilt in turn,
each time in another way; of each page the query is.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from django.urls import reverse

from tests.access import World, ask, build_world
from tests.test_access_matrix import TABLE, Entry

HOSTILE = {
    "empty": "",
    "blank": " \t\n",
    "huge": "x" * 300_000,
    "number too large": "9" * 400,
    "negative": "-1",
    "no number": "NaN",
    "infinite": "1e999",
    "a float": "1.5",
    "digits of another script": "１２३",
    "NUL": "a\0b",
    "zero width": "a\u200bdm\u2060in\ufeff",
    "turned around": "\u202egpj.exe",
    "homoglyph": "b\u0430se-m\u043edels",  # Cyrillic letters
    "lone surrogate": "%ED%A0%80",
    "combining": "z" + "\u0301" * 400,
    "markup": '<script>alert(1)</script><svg onload="alert(1)">',
    "markdown": "[a](javascript:alert(1)) ![b](data:text/html,<script>) " + "> " * 500 + "*" * 3000,
    "sql": "' OR 1=1; --",
    "a path": "../../../etc/passwd",
    "a list": "[1, 2]",
    "json": '{"a": {"b": []}}',
    "another's": "lst_00000000000000000000",
    "template": "{{ settings.SECRET_KEY }}{% debug %}%(x)s{0}",
}
QUERY = ("q", "page", "before", "after", "sort", "days", "model", "base", "file", "show", "use_case", "text", "scope", "language", "gpt")
SKIPPED = ("admin:", "api:", "openai:", "v1_batches:", "machine:")  # with envelopes and tests of their own
STATES = ("released",)


def forms(world: World) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """(what is spoilt, method, path, body): every field of every act, and the query of every page, each with the next hostile value."""
    hostile = itertools.cycle(HOSTILE.items())
    for (name, entry), state in itertools.product(TABLE.items(), STATES):
        if name.startswith(SKIPPED) or (state == "draft" and entry.states == ("released",)):
            continue
        try:
            path = reverse(name, kwargs=entry.path(world, state))
        except KeyError:  # a draft has no submission
            continue
        yield from _spoilt(name, entry, path, world, state, hostile)


def _spoilt(name: str, entry: Entry, path: str, world: World, state: str, hostile: Any) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    if entry.page is not None:
        kind, value = next(hostile)
        yield f"{name}?… {kind}", "GET", f"{path}?{urlencode(dict.fromkeys(QUERY, value[:2000]), errors='surrogatepass')}", {}
    if entry.act is not None:
        good = entry.body(world, state)
        for field in good or ("nothing",):
            kind, value = next(hostile)
            yield f"{name} {field}: {kind}", "POST", path, {**good, field: value}
        yield f"{name} without a form", "POST", path, {}


@pytest.mark.django_db
def test_nothing_that_is_sent_crashes_a_page_and_what_is_refused_changes_nothing() -> None:
    world, wrong = build_world(), []

    for spoilt, method, path, body in forms(world):
        status, said, written = ask(world.clients["owner"], method, path, body)
        if not isinstance(status, int) or status < 400:
            continue
        if status >= 500:
            wrong.append(f"{spoilt}: {status} {said[:200]}")
        elif written and method == "POST":
            wrong.append(f"{spoilt}: {status}, but it wrote to {sorted(set(written))}")

    assert not wrong, "\n".join(wrong)
