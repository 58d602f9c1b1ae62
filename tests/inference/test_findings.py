"""What a data report says of the texts: what has the shape of personal data or a secret, who is mentioned, which scripts."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.dataset_report import Tally
from inference.datasets import validate
from inference.examples import Example
from inference.findings import Findings, Kind, found_in, luhn
from inference.mentions import WORDS, Mentions
from inference.records import Document
from inference.scripts import Scripts
from inference.tokenizer import Tokenizer
from tests.inference.job_bench import chat_file, chat_line
from tests.inference.tiny import tiny_base

AWS = "AKIA" + "IOSFODNN7EXAMPLE"
GITHUB = "ghp_" + "a1" * 18
STORE = "gs_" + "0123456789_" + "x" * 40
PRIVATE = "-----BEGIN RSA " + "PRIVATE KEY-----"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.from_folder(tiny_base(tmp_path_factory.mktemp("base")))


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("Write to jo.doe+x@mail.example.org, or 邮箱a@b.cn。", {"email": 2}),
        ("Call +49 (30) 901820-12 or (212) 555-0123.", {"telephone": 2}),
        ("电话13812345678,座机010-12345678", {"telephone": 2}),
        ("Paid with 4111 1111 1111 1111 and 378282246310005.", {"credit_card": 2}),
        ("Not a card: 4111 1111 1111 1112, nor 0000000000000000.", {}),
        ("From 8.8.8.8 and 2001:4860:4860::8888.", {"ip_address": 2}),
        ("At home: 192.168.0.1, 127.0.0.1, ::1; at 12:30:45; version 1.2.3.", {}),
        ("999.1.1.1 and 8.8.8.8.8", {}),
        (f"{AWS} {GITHUB} {STORE} {PRIVATE}", {"aws_key": 1, "github_token": 1, "store_key": 1, "private_key": 1}),
        ("hf_" + "a" * 34, {"service_key": 1}),
        ("On 2024-01-02 it cost 1,234,567.89 for 20240102 things; the 1995-2005 war.", {}),
        ("a@b, @home, gs_short", {}),
    ],
)
def test_what_has_the_shape_of_personal_data_or_a_secret_is_counted(text: str, kinds: dict[str, int]) -> None:
    assert found_in(text) == kinds


@given(st.text("0123456789", min_size=1, max_size=18))
def test_exactly_one_check_digit_makes_a_number_valid(digits: str) -> None:
    assert sum(luhn(digits + check) for check in "0123456789") == 1


@pytest.mark.parametrize("part", ["a", "1", "1 ", "a.", "@", "a@", "1-", ":", "+1", "-----BEGIN A ", "(212) "])
def test_no_text_makes_the_search_slow(part: str) -> None:
    text = part * (500_000 // len(part))
    began = time.process_time()

    found_in(text)

    assert time.process_time() - began < 10


@given(st.text(max_size=200))
@settings(max_examples=300, deadline=None)
def test_whatever_the_text_it_is_searched(text: str) -> None:
    findings, mentions, scripts = Findings(), Mentions(), Scripts()

    for reader in (mentions, scripts):
        reader.read(text)
    findings.read(text, 1)

    assert {found["kind"] for found in findings.to_json()} == set(Kind)
    assert sum(scripts.to_json().values()) <= len(text)
    assert mentions.to_json().keys() == WORDS.keys()


def test_the_report_has_counts_and_first_lines_and_never_what_was_found(tokenizer: Tokenizer, tmp_path: Path) -> None:
    secret = f"Mail jo@example.org, key {AWS}"
    lines = [chat_line("Hello?", "Hello!"), *[chat_line("Hello?", f"{secret} {number}") for number in range(7)]]

    report = validate(chat_file(tmp_path / "data.jsonl", lines), tokenizer, max_length=256).to_json()

    found = {finding["kind"]: (finding["count"], finding["lines"]) for finding in report["findings"] if finding["count"]}
    assert found == {"email": (7, [2, 3, 4, 5, 6]), "aws_key": (7, [2, 3, 4, 5, 6])}
    assert "jo@" not in json.dumps(report | {"preview": []})
    assert AWS not in json.dumps(report | {"preview": []})


def test_groups_are_counted_by_axis_in_english_and_chinese() -> None:
    mentions = Mentions()

    mentions.read("She told her father. The Catholics, non-binary people and a theme: others.")
    mentions.read("她的父亲是穆斯林。")

    counted = mentions.to_json()
    assert counted["gender"] == {"women": 3, "men": 2, "gender_minorities": 1}
    assert {group: count for group, count in counted["religion"].items() if count} == {"christians": 1, "muslims": 1}
    assert set(counted["nationality"].values()) == {0}


def test_no_word_stands_for_two_groups() -> None:
    words = [word for groups in WORDS.values() for group in groups.values() for word in group.split()]

    assert len(words) == len(set(words))


def test_scripts_are_counted_by_their_letters_the_most_first() -> None:
    scripts = Scripts()

    scripts.read("Hello! 123 😀 你好,世界 Привет ひら カナ 한글 naïve")

    assert scripts.to_json() == {"latin": 10, "cyrillic": 6, "han": 4, "kana": 4, "hangul": 2}


def test_lengths_are_binned_by_doubling_with_the_empty_bins_between(tokenizer: Tokenizer) -> None:
    tally = Tally()

    for tokens in (1, 16, 17, 32, 33, 129):
        example = Example((5,) * tokens, (True,) * tokens)
        tally.add(Document(str(tokens)), [example], tokenizer)

    assert tally.report("text", "text", validation_share=0.0, seed=1).lengths == ((16, 2), (32, 2), (64, 1), (128, 0), (256, 1))
