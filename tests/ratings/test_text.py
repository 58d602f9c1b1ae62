"""What is left of what people write, and which texts are the same one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.ratings.errors import InvalidRating
from store.ratings.text import cleaned, fingerprint


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("Good\u202e at rhymes\u202c", "Good at rhymes"),
        ("\u2067Good\u2069", "Good"),
        ("Go\u200bo\u00add\ufeff", "Good"),
        ("\u200b\u2060\u3164 \u200d", ""),
        ("one\r\ntwo\u2028three", "one\ntwo\nthree"),
        ("e\u0301", "\u00e9"),
        ("z" + "\u0335" * 40 + "algo", "z" + "\u0335" * 3 + "algo"),
        ("Hidden\U000e0041\U000e0042", "Hidden"),
        (
            "\U0001f469\u200d\U0001f680 \u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
            "\U0001f469\u200d\U0001f680 \u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        ),
        ("很好。", "很好。"),
    ],
)
def test_what_nobody_sees_or_what_turns_the_text_around_is_left_out(written: str, kept: str) -> None:
    assert cleaned(written, most=100) == kept


@pytest.mark.parametrize("written", ["a\x00b", "a\x1bb", "a\x9bb", "a\ud800b", "x" * 101])
def test_what_cannot_be_shown_is_refused(written: str) -> None:
    with pytest.raises(InvalidRating):
        cleaned(written, most=100)


@given(st.text(max_size=60))
def test_cleaning_twice_changes_nothing_more(written: str) -> None:
    try:
        once = cleaned(written, most=1000)
    except InvalidRating:
        return

    assert cleaned(once, most=1000) == once
    assert not set(once) & set("\u202e\u202d\u2066\u2067\u2068\u2069\u200b\ufeff\r")


def test_the_same_text_in_another_dress_is_the_same_text() -> None:
    plain = fingerprint("The best GPT for poems that I have ever tried")

    assert plain
    assert fingerprint("THE BEST gpt, for poems: that I have ever tried!!!") == plain
    assert fingerprint("Ｔhe be\u200bst GPT for poems that I have ever tried") == plain
    assert fingerprint("The worst GPT for poems that I have ever tried") != plain
    assert fingerprint("这个模型写诗非常好用推荐大家试试") != ""


@pytest.mark.parametrize("written", ["", "Very good!", "很好用", "!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!"])
def test_short_texts_are_not_compared(written: str) -> None:
    assert fingerprint(written) == ""
