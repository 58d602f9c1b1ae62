"""A line of training data as a record: what its fields make of it, whether that can be trained on, and if not, where and why.

| format | fields |
|---|---|
| chat | `messages` |
| completion | `prompt`, `completion`, perhaps `system` |
| preference | `prompt` (a text or messages), `chosen`, `rejected` (each a text or one message of the assistant), perhaps `system`; |
| | or as OpenAI has it: `input.messages`, `preferred_output`, `non_preferred_output` |
| text | `text` |
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from inference.conversations import Messages, checked_messages, checked_text
from inference.problems import BadExample, Place, ProblemCode

MAX_LINE_BYTES = 1024 * 1024
MEANINGFUL_FIELDS = frozenset({"tools", "functions", "tool_choice", "parallel_tool_calls", "response_format"})
OPENAI_PREFERENCE = {"chosen": "preferred_output", "rejected": "non_preferred_output"}


class Format(StrEnum):
    CHAT = "chat"
    COMPLETION = "completion"
    PREFERENCE = "preference"
    TEXT = "text"


@dataclass(frozen=True)
class Conversation:
    """Messages of which the assistant's are learned."""

    messages: Messages
    format: Format = Format.CHAT
    line: int = 0

    @property
    def texts(self) -> Iterator[str]:
        return (message["content"] for message in self.messages)

    @property
    def own_texts(self) -> Iterator[str]:
        """Without the system's, which often is the same everywhere."""
        return _own(self.messages)


@dataclass(frozen=True)
class Preference:
    """Two answers to the same messages, of which the chosen one is better."""

    prompt: Messages
    chosen: str
    rejected: str
    line: int = 0
    format: Format = Format.PREFERENCE

    @property
    def texts(self) -> Iterator[str]:
        yield from (message["content"] for message in self.prompt)
        yield from (self.chosen, self.rejected)

    @property
    def own_texts(self) -> Iterator[str]:
        yield from _own(self.prompt)
        yield from (self.chosen, self.rejected)


@dataclass(frozen=True)
class Document:
    """Text all of which is learned. `ends`: False for a part that is followed by the next record."""

    text: str
    ends: bool = True
    line: int = 0
    format: Format = Format.TEXT

    @property
    def texts(self) -> Iterator[str]:
        yield self.text

    own_texts = texts


def _own(messages: Messages) -> Iterator[str]:
    return (message["content"] for message in messages if message["role"] != "system")


Record = Conversation | Preference | Document


def parse_line(raw: bytes, *, line: int = 0, first: Format | None = None) -> Record:
    """The record of one line of JSON; `first` is the format of the file, if it is known. Raises BadExample."""
    text, value = parsed(raw)
    try:
        return record_of(value, line=line, first=first)
    except BadExample as error:
        error.column = column_of(text, error.place.path) if error.place.path else 0
        raise


def parsed(raw: bytes) -> tuple[str, Mapping[str, Any]]:
    """The line as text, and the JSON object it holds. Raises BadExample."""
    if len(raw) > MAX_LINE_BYTES:
        raise line_too_large()
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise not_utf8(error) from error
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise BadExample(ProblemCode.NOT_JSON, f"Not JSON: {error.msg}.", column=error.pos + 1) from error
    except RecursionError as error:
        raise BadExample(ProblemCode.TOO_DEEP, "The JSON is nested too deeply.") from error
    except BadExample:
        raise
    except ValueError as error:  # a number of thousands of digits
        raise BadExample(ProblemCode.NOT_JSON, f"Not JSON: {error}.") from error
    if not isinstance(value, dict):
        raise BadExample(ProblemCode.NOT_AN_OBJECT, "The line must be a JSON object: {…}.")
    return text, value


def line_too_large() -> BadExample:
    message = f"The line is longer than {MAX_LINE_BYTES} bytes."
    return BadExample(ProblemCode.LINE_TOO_LARGE, message, detail={"limit_bytes": MAX_LINE_BYTES})


def not_utf8(error: UnicodeDecodeError) -> BadExample:
    message = f"Byte {error.start + 1} of the line is not UTF-8; save the file as UTF-8."
    return BadExample(ProblemCode.NOT_UTF8, message, column=error.start + 1)


def _refuse_constant(name: str) -> Any:
    raise BadExample(ProblemCode.NOT_JSON, f"{name} is not JSON.")


def format_of(value: Mapping[str, Any]) -> Format | None:
    """Which format these fields belong to, whatever they hold."""
    fields = value.keys()
    if "messages" in fields:
        return Format.CHAT
    if fields & {"chosen", "rejected", *OPENAI_PREFERENCE.values()}:
        return Format.PREFERENCE
    if fields & {"prompt", "completion"}:
        return Format.COMPLETION
    return Format.TEXT if "text" in fields else None


def record_of(value: Mapping[str, Any], *, line: int = 0, first: Format | None = None) -> Record:
    """Raises BadExample, also for another format than that of the file."""
    found = format_of(value)
    if found is None:
        known = '"messages", "prompt" and "completion", "prompt", "chosen" and "rejected", or "text"'
        raise BadExample(ProblemCode.UNKNOWN_FORMAT, f"The line has none of the fields {known}.")
    if first is not None and found != first:
        message = f"The line is of the format {found}, but the file began with {first}; a file holds one format."
        raise BadExample(ProblemCode.MIXED_FORMATS, message, detail={"format": str(found), "first": str(first)})
    if unsupported := sorted(MEANINGFUL_FIELDS & value.keys()):
        message = f'"{unsupported[0]}" cannot be trained on; remove it.'
        raise BadExample(ProblemCode.UNSUPPORTED_FIELD, message, detail={"field": unsupported[0]})
    match found:
        case Format.CHAT:
            return Conversation(checked_messages(value["messages"], ("messages",), last="assistant"), line=line)
        case Format.COMPLETION:
            asked = _asked(value)
            answer = {"role": "assistant", "content": _text(value, "completion")}
            return Conversation([*asked, answer], format=found, line=line)
        case Format.PREFERENCE:
            return _preference(value, line)
        case Format.TEXT:
            return Document(_text(value, "text", max_chars=MAX_LINE_BYTES), line=line)


def _text(value: Mapping[str, Any], name: str, *, max_chars: int | None = None) -> str:
    if name not in value:
        raise BadExample(ProblemCode.FIELD_MISSING, f'There is no "{name}".', detail={"field": name})
    place = Place((name,), field=name)
    return checked_text(value[name], place) if max_chars is None else checked_text(value[name], place, max_chars=max_chars)


def _asked(value: Mapping[str, Any]) -> Messages:
    """The prompt as a message, after the system's if there is one. An empty cell of a table is no system message."""
    prompt = {"role": "user", "content": _text(value, "prompt")}
    if value.get("system") in (None, ""):
        return [prompt]
    return [{"role": "system", "content": _text(value, "system")}, prompt]


def _preference(value: Mapping[str, Any], line: int) -> Preference:
    openai = bool(value.keys() & set(OPENAI_PREFERENCE.values()))
    prompt = _openai_prompt(value) if openai else _prompt(value)
    chosen, rejected = (_answer(value, OPENAI_PREFERENCE[name] if openai else name) for name in ("chosen", "rejected"))
    if chosen == rejected:
        raise same_answers()
    return Preference(prompt, chosen, rejected, line=line)


def same_answers() -> BadExample:
    return BadExample(ProblemCode.SAME_ANSWERS, "The chosen and the rejected answer are the same; there is nothing to prefer.")


def _prompt(value: Mapping[str, Any]) -> Messages:
    if isinstance(value.get("prompt"), list):
        return checked_messages(value["prompt"], ("prompt",), last="user")
    return _asked(value)


def _openai_prompt(value: Mapping[str, Any]) -> Messages:
    given = value.get("input")
    if not isinstance(given, dict):
        raise BadExample(ProblemCode.FIELD_MISSING, 'There is no "input" with "messages".', detail={"field": "input"})
    if unsupported := sorted(MEANINGFUL_FIELDS & {name for name, filled in given.items() if filled and name != "parallel_tool_calls"}):
        message = f'"{unsupported[0]}" cannot be trained on; remove it.'
        raise BadExample(ProblemCode.UNSUPPORTED_FIELD, message, detail={"field": unsupported[0]})
    return checked_messages(given.get("messages"), ("input", "messages"), last="user")


def _answer(value: Mapping[str, Any], name: str) -> str:
    """A text, or a list with one message of the assistant."""
    given = value.get(name)
    if not isinstance(given, list):
        return _text(value, name)
    place = Place((name,), field=name)
    only = given[0] if len(given) == 1 else None
    if not isinstance(only, dict) or only.keys() != {"role", "content"} or only["role"] != "assistant":
        raise BadExample(ProblemCode.NOT_ONE_ANSWER, f"{place} must be a text or a list with one message of the assistant.", place=place)
    return checked_text(only["content"], place)


# ---------------------------------------------------------------- where something stands


def column_of(text: str, path: tuple[str | int, ...]) -> int:
    """Column (from 1) at which what `path` leads to begins in a line of valid JSON."""
    at = _skip_space(text, 0)
    for part in path:
        at = _element_start(text, at, part) if isinstance(part, int) else _member_start(text, at, part)
    return at + 1


def _member_start(text: str, at: int, name: str) -> int:
    """Of the last member of that name: it is the one that counts."""
    decoder = json.JSONDecoder()
    found, at = at, _skip_space(text, at + 1)
    while text[at] != "}":
        key, end = decoder.raw_decode(text, at)
        start = _skip_space(text, _skip_space(text, end) + 1)
        if key == name:
            found = start
        _, end = decoder.raw_decode(text, start)
        at = _skip_space(text, end)
        if text[at] == ",":
            at = _skip_space(text, at + 1)
    return found


def _element_start(text: str, at: int, index: int) -> int:
    decoder = json.JSONDecoder()
    at = _skip_space(text, at + 1)
    for _ in range(index):
        _, end = decoder.raw_decode(text, at)
        at = _skip_space(text, _skip_space(text, end) + 1)
    return at


def _skip_space(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\n\r":
        at += 1
    return at
