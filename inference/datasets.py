"""Chat data for fine-tuning: JSONL in, checked examples, exact problems and loss masks out.

A line is `{"messages": [{"role", "content"}, …]}`: an optional system message, then user and assistant in turn, the
assistant last. The file is read line by line with bounded memory. A line that is wrong is an error with its line,
column and reason; an example longer than the model is trained on is left out and counted, never cut: a cut answer
teaches the model to stop in mid-sentence.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from inference.tokenizer import TemplateFailed

MAX_FILE_BYTES = 512 * 1024 * 1024
MAX_LINE_BYTES = 1024 * 1024
MAX_EXAMPLES = 200_000
MAX_MESSAGES = 200
MAX_CONTENT_CHARS = 100_000
KEPT_PROBLEMS = 100
PREVIEWED_EXAMPLES = 3
ROLES = ("system", "user", "assistant")
MEANINGFUL_FIELDS = frozenset({"tools", "functions", "tool_choice", "parallel_tool_calls", "response_format"})


class ProblemCode(StrEnum):
    """Why a line was refused or left out, for the store to say in the user's language."""

    NOT_UTF8 = "not_utf8"
    NOT_JSON = "not_json"
    TOO_DEEP = "too_deep"
    LINE_TOO_LARGE = "line_too_large"  # detail: {"limit_bytes"}
    NOT_AN_OBJECT = "not_an_object"
    NO_MESSAGES = "no_messages"
    TOO_MANY_MESSAGES = "too_many_messages"  # detail: {"messages", "limit"}
    UNSUPPORTED_FIELD = "unsupported_field"  # detail: {"field"}
    MESSAGE_NOT_AN_OBJECT = "message_not_an_object"  # detail of this and all below with a message: {"message": from 1}
    UNKNOWN_ROLE = "unknown_role"  # detail: {"message", "role"}
    SYSTEM_NOT_FIRST = "system_not_first"
    WRONG_TURN = "wrong_turn"  # detail: {"message", "role", "expected"}
    NOT_ENDED_BY_ASSISTANT = "not_ended_by_assistant"
    CONTENT_NOT_TEXT = "content_not_text"
    EMPTY_CONTENT = "empty_content"
    CONTENT_TOO_LONG = "content_too_long"  # detail: {"message", "characters", "limit"}
    CONTROL_CHARACTER = "control_character"  # detail: {"message", "character": "U+0007"}
    TEMPLATE_FAILED = "template_failed"
    TEMPLATE_NOT_PREFIX = "template_not_prefix"
    TOO_LONG = "too_long"  # detail: {"tokens", "limit"}; the example is left out, the file stays good
    TOO_MANY_EXAMPLES = "too_many_examples"  # detail: {"limit"}
    FILE_TOO_LARGE = "file_too_large"  # detail: {"limit_bytes"}
    NO_EXAMPLES = "no_examples"


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a data file. `line` and `column` count from 1; columns count characters (bytes for not_utf8)."""

    line: int
    column: int
    code: str
    message: str
    detail: dict[str, Any] = field(default_factory=dict)
    skips: bool = False  # True: the example is left out, the file can still be trained on


class BadExample(ValueError):
    """A line that cannot be trained on. `message_index` and `offset` say where, as far as known."""

    def __init__(
        self, code: ProblemCode, message: str, *, detail: dict[str, Any] | None = None, column: int = 0, index: int | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.column = column
        self.index = index
        self.detail = {**({"message": index + 1} if index is not None else {}), **(detail or {})}


class ChatTokenizer(Protocol):
    """What this module needs of `inference.tokenizer.Tokenizer`."""

    @property
    def eos_ids(self) -> Any: ...

    def render(self, messages: list[dict[str, str]], add_generation_prompt: bool = True) -> list[int]: ...

    def decode(self, tokens: list[int]) -> str: ...


@dataclass(frozen=True)
class Example:
    """One conversation as tokens; `trained[i]` says whether the model is taught to produce token i."""

    tokens: tuple[int, ...]
    trained: tuple[bool, ...]
    line: int = 0

    @property
    def trained_tokens(self) -> int:
        return sum(self.trained)


@dataclass(frozen=True)
class Pair:
    """Two answers to the same prompt; only the answers are trained."""

    chosen: Example
    rejected: Example


# ---------------------------------------------------------------- reading lines


def read_lines(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yields (number, line without its end). A line over MAX_LINE_BYTES comes cut to one byte more than that."""
    number = 0
    while line := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        kept = line
        while len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
            line = stream.readline(MAX_LINE_BYTES + 1)
        yield number, kept.rstrip(b"\r\n") if len(kept) <= MAX_LINE_BYTES else kept


def parse_line(raw: bytes) -> list[dict[str, str]]:
    """The messages of one line. Raises BadExample."""
    if len(raw) > MAX_LINE_BYTES:
        raise BadExample(
            ProblemCode.LINE_TOO_LARGE, f"The line is longer than {MAX_LINE_BYTES} bytes.", detail={"limit_bytes": MAX_LINE_BYTES}
        )
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadExample(
            ProblemCode.NOT_UTF8, f"Byte {error.start + 1} of the line is not UTF-8; save the file as UTF-8.", column=error.start + 1
        ) from error
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
        return _checked_messages(value)
    except json.JSONDecodeError as error:
        raise BadExample(ProblemCode.NOT_JSON, f"Not JSON: {error.msg}.", column=error.pos + 1) from error
    except RecursionError as error:
        raise BadExample(ProblemCode.TOO_DEEP, "The JSON is nested too deeply.") from error
    except BadExample as error:
        if error.index is not None:
            error.column = message_column(text, error.index)
        raise


def _refuse_constant(name: str) -> Any:
    raise BadExample(ProblemCode.NOT_JSON, f"{name} is not JSON.")


def _checked_messages(value: Any) -> list[dict[str, str]]:
    if not isinstance(value, dict):
        raise BadExample(ProblemCode.NOT_AN_OBJECT, 'The line must be an object: {"messages": [...]}.')
    if unsupported := sorted(MEANINGFUL_FIELDS & value.keys()):
        raise BadExample(
            ProblemCode.UNSUPPORTED_FIELD, f'"{unsupported[0]}" cannot be trained on; remove it.', detail={"field": unsupported[0]}
        )
    messages = value.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadExample(ProblemCode.NO_MESSAGES, 'There is no list "messages" with at least one message.')
    if len(messages) > MAX_MESSAGES:
        raise BadExample(
            ProblemCode.TOO_MANY_MESSAGES,
            f"{len(messages)} messages; at most {MAX_MESSAGES} are allowed.",
            detail={"messages": len(messages), "limit": MAX_MESSAGES},
        )
    checked = [_checked_message(message, index) for index, message in enumerate(messages)]
    _check_turns([message["role"] for message in checked])
    return checked


def _checked_message(message: Any, index: int) -> dict[str, str]:
    if not isinstance(message, dict):
        raise BadExample(
            ProblemCode.MESSAGE_NOT_AN_OBJECT, f'Message {index + 1} must be an object with "role" and "content".', index=index
        )
    if extra := sorted(str(key) for key in message.keys() - {"role", "content"}):
        raise BadExample(
            ProblemCode.UNSUPPORTED_FIELD,
            f'Message {index + 1} has the field "{extra[0][:40]}"; only "role" and "content" are trained on.',
            detail={"field": extra[0][:40]},
            index=index,
        )
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise BadExample(
            ProblemCode.UNKNOWN_ROLE,
            f"Message {index + 1} has the role {str(role)[:40]!r}; it must be system, user or assistant.",
            detail={"role": str(role)[:40]},
            index=index,
        )
    if not isinstance(content, str):
        raise BadExample(ProblemCode.CONTENT_NOT_TEXT, f"The content of message {index + 1} must be a string.", index=index)
    _check_content(content, index)
    return {"role": role, "content": content}


def _check_content(content: str, index: int) -> None:
    if not content.strip():
        raise BadExample(ProblemCode.EMPTY_CONTENT, f"The content of message {index + 1} is empty.", index=index)
    if len(content) > MAX_CONTENT_CHARS:
        raise BadExample(
            ProblemCode.CONTENT_TOO_LONG,
            f"The content of message {index + 1} has {len(content)} characters; at most {MAX_CONTENT_CHARS} are allowed.",
            detail={"characters": len(content), "limit": MAX_CONTENT_CHARS},
            index=index,
        )
    for character in content:
        if is_forbidden(character):
            name = f"U+{ord(character):04X}"
            raise BadExample(
                ProblemCode.CONTROL_CHARACTER,
                f"The content of message {index + 1} has the control character {name}; remove it.",
                detail={"character": name},
                index=index,
            )


def is_forbidden(character: str) -> bool:
    """Control characters other than tab, line feed and carriage return, and lone surrogates, which no UTF-8 text can hold."""
    point = ord(character)
    return (point < 0x20 and character not in "\t\n\r") or 0x7F <= point < 0xA0 or 0xD800 <= point < 0xE000


def _check_turns(roles: list[str]) -> None:
    expected = "user"
    for index, role in enumerate(roles):
        if role == "system" and index == 0:
            continue
        if role == "system":
            raise BadExample(ProblemCode.SYSTEM_NOT_FIRST, f"Message {index + 1} is a system message; only the first can be.", index=index)
        if role != expected:
            raise BadExample(
                ProblemCode.WRONG_TURN,
                f"Message {index + 1} is from {role}, but it is the turn of {expected}.",
                detail={"role": role, "expected": expected},
                index=index,
            )
        expected = "assistant" if role == "user" else "user"
    if roles[-1] != "assistant":
        raise BadExample(
            ProblemCode.NOT_ENDED_BY_ASSISTANT,
            "The last message must be the assistant's: it is what the model learns.",
            index=len(roles) - 1,
        )


def message_column(text: str, index: int) -> int:
    """Column (from 1) at which message `index` of a line of valid JSON begins."""
    decoder = json.JSONDecoder()
    at = _skip_space(text, _skip_space(text, 0) + 1)
    found = 0
    while text[at] != "}":
        key, end = decoder.raw_decode(text, at)
        start = _skip_space(text, _skip_space(text, end) + 1)
        if key == "messages" and text[start] == "[":
            found = _element_start(text, start, index)
        _, end = decoder.raw_decode(text, start)
        at = _skip_space(text, end)
        if text[at] == ",":
            at = _skip_space(text, at + 1)
    return found + 1


def _element_start(text: str, start: int, index: int) -> int:
    decoder = json.JSONDecoder()
    at = _skip_space(text, start + 1)
    for _ in range(index):
        _, end = decoder.raw_decode(text, at)
        at = _skip_space(text, _skip_space(text, end) + 1)
    return at


def _skip_space(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\n\r":
        at += 1
    return at


# ---------------------------------------------------------------- loss mask


def encode(messages: list[dict[str, str]], tokenizer: ChatTokenizer, *, line: int = 0) -> Example:
    """Tokens of a conversation and which of them are the assistant's.

    The template is rendered up to each assistant message with the generation prompt, and after it; what the second has
    beyond the first is what the model must learn to say. Nothing is told apart by token id, since many models pad with
    their end token. Raises BadExample when an earlier rendering is not the beginning of a later one: then the
    model would be trained on other text than it is asked with.
    """
    tokens: list[int] = []
    trained: list[bool] = []
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        try:
            prompt = tokenizer.render(messages[:index], add_generation_prompt=True)
            whole = tokenizer.render(messages[: index + 1], add_generation_prompt=False)
        except TemplateFailed as error:
            raise BadExample(ProblemCode.TEMPLATE_FAILED, str(error), index=index) from error
        if prompt[: len(tokens)] != tokens or whole[: len(prompt)] != prompt:
            raise BadExample(
                ProblemCode.TEMPLATE_NOT_PREFIX,
                f"The chat template renders the conversation before message {index + 1} differently once that message is there, "
                "so its answer cannot be told from its question. Leading spaces or line ends in the answer can cause this.",
                index=index,
            )
        trained += [False] * (len(prompt) - len(tokens))
        answer = whole[len(prompt) :]
        spoken = _spoken(answer, tokenizer.eos_ids)
        trained += [True] * spoken + [False] * (len(answer) - spoken)
        tokens = whole
    return Example(tokens=tuple(tokens), trained=tuple(trained), line=line)


def _spoken(answer: list[int], eos_ids: Any) -> int:
    """How many tokens of an answer the model says itself: all up to the end token, not the line end a template adds."""
    for position in range(len(answer) - 1, -1, -1):
        if answer[position] in eos_ids:
            return position + 1
    return len(answer)


# ---------------------------------------------------------------- validation


@dataclass(frozen=True)
class DatasetReport:
    """What validation found. `problems` holds the first KEPT_PROBLEMS of `problem_count`."""

    lines: int
    examples: int
    skipped: int  # too long for the model or for the settings
    duplicates: int
    tokens: int
    trained_tokens: int
    longest_tokens: int
    error_count: int
    problem_count: int
    problems: tuple[Problem, ...]
    preview: tuple[tuple[dict[str, Any], ...], ...]  # per example, runs of {"text", "trained"}

    @property
    def valid(self) -> bool:
        return self.error_count == 0

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "valid": self.valid}


class _Tally:
    def __init__(self) -> None:
        self.lines = self.examples = self.skipped = self.duplicates = 0
        self.tokens = self.trained_tokens = self.longest_tokens = 0
        self.error_count = self.problem_count = 0
        self.problems: list[Problem] = []
        self.preview: list[tuple[dict[str, Any], ...]] = []
        self.seen: set[bytes] = set()

    def add_problem(self, problem: Problem) -> None:
        self.problem_count += 1
        self.error_count += not problem.skips
        self.skipped += problem.skips
        if len(self.problems) < KEPT_PROBLEMS:
            self.problems.append(problem)

    def add_messages(self, messages: list[dict[str, str]]) -> None:
        digest = hashlib.blake2b(json.dumps(messages).encode(), digest_size=16).digest()
        self.duplicates += digest in self.seen
        self.seen.add(digest)

    def add_example(self, example: Example, tokenizer: ChatTokenizer) -> None:
        self.examples += 1
        self.tokens += len(example.tokens)
        self.trained_tokens += example.trained_tokens
        self.longest_tokens = max(self.longest_tokens, len(example.tokens))
        if len(self.preview) < PREVIEWED_EXAMPLES:
            self.preview.append(tuple(runs(example, tokenizer)))

    def report(self) -> DatasetReport:
        if not self.examples and not self.error_count:
            self.add_problem(Problem(max(self.lines, 1), 1, ProblemCode.NO_EXAMPLES, "The file has no example that can be trained on."))
        return DatasetReport(
            lines=self.lines,
            examples=self.examples,
            skipped=self.skipped,
            duplicates=self.duplicates,
            tokens=self.tokens,
            trained_tokens=self.trained_tokens,
            longest_tokens=self.longest_tokens,
            error_count=self.error_count,
            problem_count=self.problem_count,
            problems=tuple(self.problems),
            preview=tuple(self.preview),
        )


def runs(example: Example, tokenizer: ChatTokenizer) -> Iterator[dict[str, Any]]:
    """The example as text in runs of {"text", "trained"}, for a preview that greys what is not learned."""
    start = 0
    for end in range(1, len(example.tokens) + 1):
        if end == len(example.tokens) or example.trained[end] != example.trained[start]:
            yield {"text": tokenizer.decode(list(example.tokens[start:end])), "trained": example.trained[start]}
            start = end


def scan(path: Path, tokenizer: ChatTokenizer, *, max_length: int) -> Iterator[tuple[int, list[dict[str, str]], Example] | Problem]:
    """Every line of the file in order, as (line, messages, example) or as the problem it has."""
    examples = 0
    if path.stat().st_size > MAX_FILE_BYTES:
        message = f"The file is larger than {MAX_FILE_BYTES} bytes."
        yield Problem(1, 1, ProblemCode.FILE_TOO_LARGE, message, {"limit_bytes": MAX_FILE_BYTES})
        return
    with path.open("rb") as stream:
        for number, raw in read_lines(stream):
            raw = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
            if not raw.strip():
                continue
            examples += 1
            if examples > MAX_EXAMPLES:
                message = f"The file has more than {MAX_EXAMPLES} examples."
                yield Problem(number, 1, ProblemCode.TOO_MANY_EXAMPLES, message, {"limit": MAX_EXAMPLES})
                return
            try:
                messages = parse_line(raw)
                example = encode(messages, tokenizer, line=number)
            except BadExample as error:
                yield Problem(number, max(error.column, 1), error.code, str(error), error.detail)
                continue
            if len(example.tokens) > max_length:
                yield _too_long(number, tokens=len(example.tokens), limit=max_length)
                continue
            yield number, messages, example


def _too_long(line: int, *, tokens: int, limit: int) -> Problem:
    message = f"The example has {tokens} tokens, more than the {limit} trained on; it is left out."
    return Problem(line, 1, ProblemCode.TOO_LONG, message, {"tokens": tokens, "limit": limit}, skips=True)


def validate(path: Path, tokenizer: ChatTokenizer, *, max_length: int) -> DatasetReport:
    """Reads the whole file once, keeping counts, a digest per example and the first problems in memory."""
    tally = _Tally()
    for found in scan(path, tokenizer, max_length=max_length):
        if isinstance(found, Problem):
            tally.lines = max(tally.lines, found.line)
            tally.add_problem(found)
            continue
        line, messages, example = found
        tally.lines = line
        tally.add_messages(messages)
        tally.add_example(example, tokenizer)
    return tally.report()


class UnusableDataset(ValueError):
    """The file cannot be trained on; `problem` is its first error."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"line {problem.line}, column {problem.column}: {problem.message}")
        self.problem = problem


def load_examples(path: Path, tokenizer: ChatTokenizer, *, max_length: int) -> list[Example]:
    """All examples that fit. Raises UnusableDataset at the first error, or when nothing is left to train on."""
    examples: list[Example] = []
    for found in scan(path, tokenizer, max_length=max_length):
        if not isinstance(found, Problem):
            examples.append(found[2])
        elif not found.skips:
            raise UnusableDataset(found)
    if not examples:
        raise UnusableDataset(Problem(1, 1, ProblemCode.NO_EXAMPLES, "The file has no example that can be trained on."))
    return examples
