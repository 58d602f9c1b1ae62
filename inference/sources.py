"""Files of training data, read in order with bounded memory: JSON lines, a table (CSV) or plain text.

Which of them a file is follows from its name; a file without a telling name, such as one kept by its digest, is known by
its first line: an object is JSON, a header with the columns of a format is a table, everything else is text.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from pathlib import Path, PurePath
from typing import BinaryIO

from inference.problems import BadExample, Problem, ProblemCode
from inference.records import MAX_LINE_BYTES, Document, Format, Record, line_too_large, not_utf8, parse_line, record_of

MAX_FILE_BYTES = 512 * 1024 * 1024
MAX_EXAMPLES = 200_000
MAX_PART_CHARS = 100_000  # of a document of plain text, which is read in parts beyond that
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
NOT_DECODED = re.compile("[\udc80-\udcff]")  # what "surrogateescape" makes of a byte that is no UTF-8
DELIMITERS = (",", ";", "\t")
HEADERS = (frozenset({"prompt", "chosen", "rejected"}), frozenset({"prompt", "completion"}), frozenset({"text"}))


class Container(StrEnum):
    JSONL = "jsonl"
    CSV = "csv"
    TEXT = "text"


SUFFIXES = {".jsonl": Container.JSONL, ".json": Container.JSONL, ".csv": Container.CSV, ".txt": Container.TEXT}


def container_of(path: Path, *, name: str = "") -> Container:
    """By the name the file was brought under or has, or else by its first line that is not empty."""
    for named in (name, path.name):
        if known := SUFFIXES.get(PurePath(named).suffix.lower()):
            return known
    with path.open("rb") as stream:
        first = next((line for _, line in read_lines(stream) if line.strip()), b"")
    if first.lstrip().startswith((b"{", b"[")) or not first:
        return Container.JSONL
    return Container.CSV if _dialect(first.decode("utf-8", "replace")) else Container.TEXT


def read(path: Path, *, name: str = "") -> Iterator[Record | Problem]:
    """Every record of the file in order, or the problem in its place."""
    if path.stat().st_size > MAX_FILE_BYTES:
        message = f"The file is larger than {MAX_FILE_BYTES} bytes."
        yield Problem(1, 1, ProblemCode.FILE_TOO_LARGE, message, {"limit_bytes": MAX_FILE_BYTES})
        return
    with path.open("rb") as stream:
        match container_of(path, name=name):
            case Container.JSONL:
                found = _json_lines(stream)
            case Container.CSV:
                found = _table(stream)
            case Container.TEXT:
                found = _documents(stream)
        for number, record in enumerate(found, 1):
            if number > MAX_EXAMPLES:
                message = f"The file has more than {MAX_EXAMPLES} examples."
                yield Problem(record.line, 1, ProblemCode.TOO_MANY_EXAMPLES, message, {"limit": MAX_EXAMPLES})
                return
            yield record


def read_lines(stream: BinaryIO, *, ends: bool = False) -> Iterator[tuple[int, bytes]]:
    """Yields (number, line without its end, unless `ends`). A line over MAX_LINE_BYTES comes cut to one byte more than that."""
    number = 0
    while line := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        kept = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
        while len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
            line = stream.readline(MAX_LINE_BYTES + 1)
        yield number, kept if ends or len(kept) > MAX_LINE_BYTES else kept.rstrip(b"\r\n")


# ---------------------------------------------------------------- JSON lines


def _json_lines(stream: BinaryIO) -> Iterator[Record | Problem]:
    first: Format | None = None
    for number, raw in read_lines(stream):
        if not raw.strip():
            continue
        try:
            record = parse_line(raw, line=number, first=first)
        except BadExample as error:
            yield error.at(number)
            continue
        first = record.format
        yield record


# ---------------------------------------------------------------- tables


@dataclass(frozen=True)
class _Dialect:
    delimiter: str
    columns: list[str]
    read: frozenset[str]  # those of the format; others may stand beside them


def _dialect(header: str) -> _Dialect | None:
    """How a table is written whose header names all columns of a format."""
    for delimiter in DELIMITERS:
        try:
            columns = [column.lower() for column in next(csv.reader([header], delimiter=delimiter, strict=True), [])]
        except csv.Error:
            continue
        needed = next((needed for needed in HEADERS if needed <= set(columns)), None)
        if needed is not None and len(set(columns)) == len(columns):
            return _Dialect(delimiter, columns, needed | {"system"})
    return None


def _table(stream: BinaryIO) -> Iterator[Record | Problem]:
    """Ends at the first place that is not CSV: where the next row begins is not known from there on."""
    lines = _text_lines(stream)
    try:
        header = next(lines, "")
    except BadExample as error:
        yield error.at(1)
        return
    dialect = _dialect(header)
    if dialect is None:
        message = 'The first line must name the columns: "prompt,completion", "prompt,chosen,rejected" or "text".'
        yield Problem(1, 1, ProblemCode.UNKNOWN_COLUMNS, message)
        return
    reader = csv.reader(chain([header], lines), delimiter=dialect.delimiter, strict=True)
    next(reader)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
            if any(cells):
                yield _row(cells, dialect, line)
        except StopIteration:
            return
        except csv.Error as error:
            yield Problem(line, 1, ProblemCode.NOT_CSV, f"Not CSV: {error}. The file was read only to here.")
            return
        except BadExample as error:
            yield error.at(line)
            if error.code == ProblemCode.LINE_TOO_LARGE:
                return


def _text_lines(stream: BinaryIO) -> Iterator[str]:
    for _, raw in read_lines(stream, ends=True):
        if len(raw) > MAX_LINE_BYTES:
            raise line_too_large()
        yield raw.decode("utf-8", "surrogateescape")


def _row(cells: list[str], dialect: _Dialect, line: int) -> Record:
    if len(cells) != len(dialect.columns):
        message = f"The row has {len(cells)} cells, but the header names {len(dialect.columns)} columns."
        raise BadExample(ProblemCode.WRONG_CELLS, message, detail={"cells": len(cells), "columns": len(dialect.columns)})
    value = {name: cell for name, cell in zip(dialect.columns, cells, strict=True) if name in dialect.read}
    if any(NOT_DECODED.search(cell) for cell in value.values()):
        raise BadExample(ProblemCode.NOT_UTF8, "The row is not UTF-8; save the file as UTF-8.")
    return record_of(value, line=line)


# ---------------------------------------------------------------- plain text


def _documents(stream: BinaryIO) -> Iterator[Record | Problem]:
    """Documents stand apart by empty lines. A long one comes in parts, cut between lines, so that memory stays bounded."""
    held: list[str] = []
    begun = chars = 0
    for number, raw in read_lines(stream):
        try:
            line = _decoded(raw)
        except BadExample as error:
            if held:
                yield from _document(held, line=begun, ends=False)
            held, chars = [], 0
            yield error.at(number)
            continue
        if not line.strip():
            if held:
                yield from _document(held, line=begun, ends=True)
            held, chars = [], 0
            continue
        if held and chars + len(line) > MAX_PART_CHARS:
            yield from _document([*held, ""], line=begun, ends=False)
            held, chars = [], 0
        begun = begun if held else number
        held.append(line)
        chars += len(line) + 1
    if held:
        yield from _document(held, line=begun, ends=True)


def _decoded(raw: bytes) -> str:
    if len(raw) > MAX_LINE_BYTES:
        raise line_too_large()
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise not_utf8(error) from error


def _document(lines: list[str], *, line: int, ends: bool) -> Iterator[Record | Problem]:
    try:
        record = record_of({"text": "\n".join(lines)}, line=line)
        assert isinstance(record, Document)
        yield Document(record.text, ends=ends, line=line)
    except BadExample as error:
        yield error.at(line)
