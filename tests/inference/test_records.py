"""A line of training data: which are refused, where and why, and what the others mean."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference import records
from inference.problems import BadExample
from inference.records import column_of, parse_line


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
        (b'{"question": "x", "answer": "y"}', "unknown_format", 0),
        (b'{"prompt": "x"}', "field_missing", 0),
        (b'{"prompt": "x", "completion": 7}', "field_not_text", 31),
        (b'{"prompt": "x", "completion": " "}', "field_empty", 31),
        (b'{"completion": "y", "prompt": "a\\u0007"}', "field_control_character", 31),
        (b'{"prompt": "x", "completion": "y", "system": []}', "field_not_text", 46),
        (b'{"prompt": "x", "chosen": "y", "rejected": "y"}', "same_answers", 0),
        (b'{"prompt": "x", "chosen": ["y"], "rejected": "z"}', "not_one_answer", 27),
        (b'{"prompt": "x", "chosen": [{"role": "user", "content": "y"}], "rejected": "z"}', "not_one_answer", 27),
        (b'{"prompt": [{"role": "assistant", "content": "x"}], "chosen": "y", "rejected": "z"}', "wrong_turn", 13),
        (b'{"prompt": [{"role": "system", "content": "x"}], "chosen": "y", "rejected": "z"}', "not_ended_by_user", 13),
        (b'{"input": "x", "preferred_output": "y", "non_preferred_output": "z"}', "field_missing", 0),
        (b'{"text": ""}', "field_empty", 10),
        (b'{"number": ' + b"1" * 5000 + b"}", "not_json", 0),
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
        (b'{"messages": "' + b"x" * records.MAX_LINE_BYTES + b'"}', "line_too_large", 0),
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
        record = parse_line(raw)
    except BadExample:
        return
    assert all(text.strip() for text in record.texts)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.sampled_from(["user", "assistant", "system"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "messages", "x"]), inner, max_size=3)
        | st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system"]), "content": inner})
    ),
    max_leaves=8,
)
fields = ["messages", "prompt", "completion", "chosen", "rejected", "system", "text", "input", "preferred_output", "non_preferred_output"]


@given(st.dictionaries(st.sampled_from(fields), json_values, max_size=4))
@settings(max_examples=500, deadline=None)
def test_whatever_the_json_a_line_is_a_record_of_text_or_refused_at_a_column_of_it(value: dict[str, Any]) -> None:
    raw = json.dumps(value).encode()
    refused, texts = None, []
    try:
        texts = [*parse_line(raw).texts]
    except BadExample as error:
        refused = error

    assert (bool(texts) and all(text.strip() for text in texts)) if refused is None else 0 <= refused.column <= len(raw)


@given(st.lists(st.text(alphabet='ab"\\{}[],: é', max_size=8), min_size=1, max_size=5), st.integers(0, 4), st.booleans())
@settings(deadline=None)
def test_the_column_of_a_message_is_where_it_begins(contents: list[str], index: int, spaced: bool) -> None:
    index = index % len(contents)
    separators = (", ", ": ") if spaced else (",", ":")
    messages = [{"role": "user", "content": content} for content in contents]
    text = json.dumps({"note": "messages", "messages": messages}, separators=separators, ensure_ascii=False)

    column = column_of(text, ("messages", index))

    decoded, _ = json.JSONDecoder().raw_decode(text, column - 1)
    assert decoded == messages[index]


def test_a_line_of_another_format_than_the_first_names_both() -> None:
    with pytest.raises(BadExample) as refused:
        parse_line(b'{"text": "x"}', first=records.Format.CHAT)

    assert refused.value.detail == {"format": "text", "first": "chat"}
    assert str(refused.value) == "The line is of the format text, but the file began with chat; a file holds one format."
