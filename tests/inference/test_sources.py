"""Files of training data: which kind a file is, where its records begin, and that memory stays bounded."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inference import sources
from inference.problems import Problem
from inference.records import Conversation, Document, Format, Preference, Record
from inference.sources import container_of, read


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def problems(found: list[Record | Problem]) -> list[tuple[int, str]]:
    return [(problem.line, problem.code) for problem in found if isinstance(problem, Problem)]


@pytest.mark.parametrize(
    ("name", "content", "container"),
    [
        ("a.jsonl", b"prompt,completion\n", "jsonl"),
        ("a.CSV", b"{}", "csv"),
        ("a.txt", b"{}", "text"),
        ("", b'\n \n{"text": 1}', "jsonl"),
        ("", b"[", "jsonl"),
        ("", b"", "jsonl"),
        ("", b"\xef\xbb\xbfPrompt,Completion\r\n", "csv"),
        ("", b"id;prompt;chosen;rejected\n", "csv"),
        ("", b"text\n", "csv"),
        ("", b"Hello, text, world.\n", "text"),
        ("", b"prompt,prompt,completion\n", "text"),
        ("", b"\xff\xfe", "text"),
    ],
)
def test_the_kind_of_a_file_follows_from_its_name_or_else_from_its_first_line(
    tmp_path: Path, name: str, content: bytes, container: str
) -> None:
    assert container_of(written(tmp_path / ("f" * 64), content), name=name) == container


def test_a_table_is_read_row_by_row_with_the_line_where_each_begins(tmp_path: Path) -> None:
    file = written(
        tmp_path / "a.csv",
        b'id,prompt,completion,system\r\n1,"Two\nlines, ""quoted""",Yes.,\r\n\r\n,,,\r\n2,Hello?,Hello!,Be brief.\r\n',
    )

    first, second = read(file)

    assert first == Conversation(
        [{"role": "user", "content": 'Two\nlines, "quoted"'}, {"role": "assistant", "content": "Yes."}], format=Format.COMPLETION, line=2
    )
    assert isinstance(second, Conversation)
    assert (second.line, [message["role"] for message in second.messages]) == (6, ["system", "user", "assistant"])


def test_each_header_makes_its_own_format(tmp_path: Path) -> None:
    pairs = written(tmp_path / "pairs.csv", b"prompt\tchosen\trejected\nHello?\tYes.\tNo.\n")
    texts = written(tmp_path / "texts.csv", b"text\nHello.\n")

    assert [*read(pairs)] == [Preference([{"role": "user", "content": "Hello?"}], "Yes.", "No.", line=2)]
    assert [*read(texts)] == [Document("Hello.", line=2)]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"question,answer\nx,y\n", [(1, "unknown_columns")]),
        (b"", [(1, "unknown_columns")]),
        (b"prompt,completion\nx\nx,y,z\n", [(2, "wrong_cells"), (3, "wrong_cells")]),
        (b"prompt,completion\nx,\n\xff,y\n", [(2, "field_empty"), (3, "not_utf8")]),
        (b'prompt,completion\nx,y\n"x,y\nx,y\n', [(3, "not_csv")]),
        (b"prompt,completion\n" + b"x" * 200_000 + b",y\nx,y\n", [(2, "not_csv")]),
        (b"prompt,completion\n" + b"x" * 1_100_000 + b",y\nx,y\n", [(2, "line_too_large")]),
        (b"x" * 1_100_000, [(1, "line_too_large")]),
    ],
)
def test_what_is_wrong_in_a_table_is_said_at_its_line(tmp_path: Path, content: bytes, found: list[tuple[int, str]]) -> None:
    assert problems([*read(written(tmp_path / "a.csv", content))]) == found


@given(st.lists(st.tuples(*[st.text(st.characters(blacklist_categories=["Cc", "Cs"]), min_size=1, max_size=9)] * 2), max_size=5))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_the_csv_module_writes_is_read_back(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    rows = [row for row in rows if all(cell.strip() for cell in row)]
    out = io.StringIO()
    csv.writer(out).writerows([("prompt", "completion"), *rows])

    found = [*read(written(tmp_path / "a.csv", out.getvalue().encode()))]

    assert [tuple(record.texts) for record in found if not isinstance(record, Problem)] == rows


@given(st.binary(max_size=300), st.sampled_from(["", "a.jsonl", "a.csv", "a.txt"]), st.sampled_from([b"", b"text\n", b'{"text": "a"}\n']))
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_the_bytes_a_file_is_read_to_its_end_in_order(tmp_path: Path, raw: bytes, name: str, before: bytes) -> None:
    lines = [found.line for found in read(written(tmp_path / "file", before + raw), name=name)]

    assert lines == sorted(lines)


def test_documents_of_plain_text_stand_apart_by_empty_lines(tmp_path: Path) -> None:
    file = written(tmp_path / "a.txt", b"\xef\xbb\xbfOne\nmore\r\n \n\nTwo\n\n\n")

    assert [*read(file)] == [Document("One\nmore", line=1), Document("Two", line=5)]


def test_a_long_document_comes_in_parts_of_which_the_last_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_PART_CHARS", 10)

    found = [*read(written(tmp_path / "a.txt", b"one two\nthree four\nfive\n\nsix"))]

    assert found == [
        Document("one two\n", ends=False, line=1),
        Document("three four\n", ends=False, line=2),
        Document("five", line=3),
        Document("six", line=5),
    ]


@given(
    st.lists(st.lists(st.text("ab é", min_size=1, max_size=8).filter(str.strip), min_size=1, max_size=4), max_size=4), st.integers(1, 20)
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_parts_of_a_text_are_the_text_wherever_it_is_cut(tmp_path: Path, documents: list[list[str]], part: int) -> None:
    texts = ["\n".join(lines) for lines in documents]
    file = written(tmp_path / "a.txt", "\n\n".join(texts).encode())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "MAX_PART_CHARS", part)
        found = [record for record in read(file) if isinstance(record, Document)]

    assert "".join(record.text + "\0" * record.ends for record in found) == "".join(text + "\0" for text in texts)


def test_text_that_is_not_utf_8_or_has_no_lines_is_said_where(tmp_path: Path) -> None:
    file = written(tmp_path / "a.txt", b"good\n\xffbad\n\na\x00b\n\n" + b"x" * 1_100_000)

    assert problems([*read(file)]) == [(2, "not_utf8"), (4, "field_control_character"), (6, "line_too_large")]


def test_a_file_holds_one_format_and_the_first_line_that_can_be_read_says_which(tmp_path: Path) -> None:
    chat = json.dumps({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})
    file = written(tmp_path / "a.jsonl", "\n".join(["{", '{"text": "a"}', chat, '{"text": "b"}']).encode())

    assert problems([*read(file)]) == [(1, "not_json"), (3, "mixed_formats")]


def test_a_file_of_too_many_examples_is_read_only_to_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_EXAMPLES", 2)

    assert problems([*read(written(tmp_path / "a.txt", b"a\n\nb\n\nc\n\nd"))]) == [(5, "too_many_examples")]


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_FILE_BYTES", 2)

    assert problems([*read(written(tmp_path / "a.txt", b"abc"))]) == [(1, "file_too_large")]
