"""Chat data: which lines are refused, where and why; which tokens are learned; and that nothing is held in memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference import datasets
from inference.datasets import BadExample, UnusableDataset, encode, load_examples, message_column, parse_line, validate
from inference.tokenizer import Tokenizer
from tests.inference.job_bench import chat_file, chat_line
from tests.inference.tiny import tiny_base


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.from_folder(tiny_base(tmp_path_factory.mktemp("base")))


def line(*roles: str, content: Any = "x", **fields: Any) -> bytes:
    return json.dumps({"messages": [{"role": role, "content": content} for role in roles], **fields}).encode()


@pytest.mark.parametrize(
    ("raw", "code", "column"),
    [
        (b'{"messages": [\xff]}', "not_utf8", 15),
        (b'{"messages": [}', "not_json", 15),
        (b'{"messages": NaN}', "not_json", 0),
        (b"[" * 100_000, "too_deep", 0),
        (b'["messages"]', "not_an_object", 0),
        (b'{"prompt": "x", "completion": "y"}', "no_messages", 0),
        (b'{"messages": []}', "no_messages", 0),
        (line("user", "assistant", tools=[]), "unsupported_field", 0),
        (b'{"messages": ["hi"]}', "message_not_an_object", 15),
        (b'{"messages": [{"role": "user", "content": "x", "name": "me"}]}', "unsupported_field", 15),
        (line("user", "robot"), "unknown_role", 49),
        (line("user", "system", "assistant"), "system_not_first", 49),
        (line("assistant"), "wrong_turn", 15),
        (line("user", "user", "assistant"), "wrong_turn", 49),
        (line("user", "assistant", "user"), "not_ended_by_assistant", 88),
        (line("user", "assistant", content=["x"]), "content_not_text", 15),
        (line("user", "assistant", content="  \n"), "empty_content", 15),
        (line("user", "assistant", content="a\u0007"), "control_character", 15),
        (line("user", "assistant", content="\ud800"), "control_character", 15),
        (line("user", "assistant", content="x" * 100_001), "content_too_long", 15),
        (line(*["user", "assistant"] * 101), "too_many_messages", 0),
        (b'{"messages": "' + b"x" * datasets.MAX_LINE_BYTES + b'"}', "line_too_large", 0),
    ],
)
def test_a_wrong_line_is_refused_with_its_reason_and_place(raw: bytes, code: str, column: int) -> None:
    with pytest.raises(BadExample) as refused:
        parse_line(raw)

    assert (refused.value.code, refused.value.column) == (code, column)


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_whatever_the_bytes_a_line_is_read_or_refused(raw: bytes) -> None:
    try:
        messages = parse_line(raw)
    except BadExample:
        return
    assert messages[-1]["role"] == "assistant"


@given(st.lists(st.text(alphabet='ab"\\{}[],: é', max_size=8), min_size=1, max_size=5), st.integers(0, 4), st.booleans())
@settings(deadline=None)
def test_the_column_of_a_message_is_where_it_begins(contents: list[str], index: int, spaced: bool) -> None:
    index = index % len(contents)
    separators = (", ", ": ") if spaced else (",", ":")
    messages = [{"role": "user", "content": content} for content in contents]
    text = json.dumps({"note": "messages", "messages": messages}, separators=separators, ensure_ascii=False)

    column = message_column(text, index)

    decoded, _ = json.JSONDecoder().raw_decode(text, column - 1)
    assert decoded == messages[index]


def test_the_assistants_words_and_its_end_are_learned_and_nothing_else(tokenizer: Tokenizer) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello?"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "And now?"},
        {"role": "assistant", "content": "Paris."},
    ]

    example = encode(messages, tokenizer)

    learned = [token for token, trained in zip(example.tokens, example.trained, strict=True) if trained]
    (end,) = tokenizer.encode("<|im_end|>")
    assert learned == [*tokenizer.encode("Hello!"), end, *tokenizer.encode("Paris."), end]
    assert list(example.tokens) == tokenizer.render(messages, add_generation_prompt=False)


def test_an_end_mark_that_a_message_spells_out_is_plain_text(tokenizer: Tokenizer) -> None:
    example = encode([{"role": "user", "content": "<|im_end|>"}, {"role": "assistant", "content": "No."}], tokenizer)

    (end,) = tokenizer.encode("<|im_end|>")
    assert example.tokens.count(end) == 2


def test_a_template_that_rewrites_what_stood_before_is_refused(tokenizer: Tokenizer) -> None:
    class Forgetful:
        eos_ids = tokenizer.eos_ids

        def render(self, messages: list[dict[str, str]], add_generation_prompt: bool = True) -> list[int]:
            return tokenizer.render(messages[-1:], add_generation_prompt)

        def decode(self, tokens: list[int]) -> str:
            return tokenizer.decode(tokens)

    with pytest.raises(BadExample) as refused:
        encode([{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hello!"}], Forgetful())

    assert refused.value.code == "template_not_prefix"


def test_a_report_counts_everything_and_previews_what_is_learned(tokenizer: Tokenizer, tmp_path: Path) -> None:
    lines = [
        b"\xef\xbb\xbf" + chat_line("Hello?", "Hello!"),
        b"",
        chat_line("Hello?", "Hello!"),
        b"{",
        chat_line("x " * 200, "y"),
        b'["a"]',
    ]

    report = validate(chat_file(tmp_path / "data.jsonl", lines), tokenizer, max_length=64)

    assert (report.lines, report.examples, report.duplicates, report.skipped) == (6, 2, 1, 1)
    assert (report.error_count, report.problem_count, report.valid) == (2, 3, False)
    assert [(p.line, p.code, p.skips) for p in report.problems] == [
        (4, "not_json", False),
        (5, "too_long", True),
        (6, "not_an_object", False),
    ]
    assert "".join(run["text"] for run in report.preview[0] if run["trained"]) == "Hello!"
    assert json.dumps(report.to_json())


def test_only_the_first_problems_are_kept_and_all_are_counted(tokenizer: Tokenizer, tmp_path: Path) -> None:
    report = validate(chat_file(tmp_path / "data.jsonl", [b"{"] * 250), tokenizer, max_length=64)

    assert (report.error_count, len(report.problems)) == (250, 100)


def test_a_file_of_nothing_is_said_to_be_one(tokenizer: Tokenizer, tmp_path: Path) -> None:
    empty, long = tmp_path / "empty.jsonl", chat_file(tmp_path / "long.jsonl", [chat_line("x " * 200, "y")])
    empty.write_bytes(b"\n\n")

    assert [p.code for p in validate(empty, tokenizer, max_length=64).problems] == ["no_examples"]
    assert [p.code for p in validate(long, tokenizer, max_length=64).problems] == ["too_long", "no_examples"]


def test_training_refuses_what_validation_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    file = chat_file(tmp_path / "data.jsonl", [chat_line("Hello?", "Hello!"), b"{"])

    with pytest.raises(UnusableDataset) as refused:
        load_examples(file, tokenizer, max_length=64)

    assert (refused.value.problem.line, refused.value.problem.code) == (2, "not_json")
