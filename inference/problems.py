"""What can be wrong with a line of training data: by code, for the store to say in the user's language, and in English."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class ProblemCode(StrEnum):
    """Why a line was refused or left out."""

    # the line
    NOT_UTF8 = "not_utf8"
    NOT_JSON = "not_json"
    NOT_CSV = "not_csv"
    TOO_DEEP = "too_deep"
    LINE_TOO_LARGE = "line_too_large"  # detail: {"limit_bytes"}
    NOT_AN_OBJECT = "not_an_object"
    WRONG_CELLS = "wrong_cells"  # detail: {"cells", "columns"}
    # its format
    UNKNOWN_FORMAT = "unknown_format"
    UNKNOWN_COLUMNS = "unknown_columns"
    MIXED_FORMATS = "mixed_formats"  # detail: {"format", "first"}
    WRONG_FORMAT = "wrong_format"  # detail: {"format", "use"}
    # its messages; detail has {"message": from 1} wherever one is meant
    NO_MESSAGES = "no_messages"
    TOO_MANY_MESSAGES = "too_many_messages"  # detail: {"messages", "limit"}
    UNSUPPORTED_FIELD = "unsupported_field"  # detail: {"field"}
    MESSAGE_NOT_AN_OBJECT = "message_not_an_object"
    UNKNOWN_ROLE = "unknown_role"  # detail: {"message", "role"}
    SYSTEM_NOT_FIRST = "system_not_first"
    WRONG_TURN = "wrong_turn"  # detail: {"message", "role", "expected"}
    NOT_ENDED_BY_ASSISTANT = "not_ended_by_assistant"
    NOT_ENDED_BY_USER = "not_ended_by_user"
    CONTENT_NOT_TEXT = "content_not_text"
    EMPTY_CONTENT = "empty_content"
    CONTENT_TOO_LONG = "content_too_long"  # detail: {"message", "characters", "limit"}
    CONTROL_CHARACTER = "control_character"  # detail: {"message", "character": "U+0007"}
    # its fields
    FIELD_MISSING = "field_missing"  # detail of this and all below: {"field"}
    FIELD_NOT_TEXT = "field_not_text"
    FIELD_EMPTY = "field_empty"
    FIELD_TOO_LONG = "field_too_long"  # detail: {"field", "characters", "limit"}
    FIELD_CONTROL_CHARACTER = "field_control_character"  # detail: {"field", "character"}
    NOT_ONE_ANSWER = "not_one_answer"
    SAME_ANSWERS = "same_answers"
    # what the model makes of it
    TEMPLATE_FAILED = "template_failed"
    TEMPLATE_NOT_PREFIX = "template_not_prefix"
    TOO_LONG = "too_long"  # detail: {"tokens", "limit"}; the example is left out, the file stays good
    # an item of an evaluation's suite
    UNKNOWN_ITEM = "unknown_item"
    WRONG_EXPECTED = "wrong_expected"
    WRONG_CHOICES = "wrong_choices"  # detail: {"limit"}
    WRONG_ANSWER = "wrong_answer"  # detail: {"choices"}
    # the file
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


@dataclass(frozen=True)
class Place:
    """Where in a record something stands: the way to it through the JSON, and the message or field as people know it."""

    path: tuple[str | int, ...]
    message: int | None = None  # from 0
    field: str = ""

    @property
    def detail(self) -> dict[str, Any]:
        return {"message": self.message + 1} if self.message is not None else {"field": self.field}

    def __str__(self) -> str:
        return f"The content of message {self.message + 1}" if self.message is not None else f'"{self.field}"'


NOWHERE = Place(())


class BadExample(ValueError):
    """A record that cannot be trained on, and where in its line, as far as known."""

    def __init__(
        self, code: ProblemCode, message: str, *, detail: dict[str, Any] | None = None, column: int = 0, place: Place = NOWHERE
    ) -> None:
        super().__init__(message)
        self.code = code
        self.column = column
        self.place = place
        self.detail = {**(place.detail if place.path else {}), **(detail or {})}

    def at(self, line: int) -> Problem:
        return Problem(line, max(self.column, 1), self.code, str(self), self.detail)


class UnusableDataset(ValueError):
    """The file cannot be trained on; `problem` is its first error."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"line {problem.line}, column {problem.column}: {problem.message}")
        self.problem = problem
