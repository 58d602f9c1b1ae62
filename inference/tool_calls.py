"""How an answer calls functions: the one form that models are told of, that a rule holds them to, and that is read from their text.

    <tool_call>
    {"name": "weather", "arguments": {"town": "Paris"}}
    </tool_call>

It is that of Hermes, on which many models were trained. Text may stand before the first call, nothing behind it but further ones.
With `protocol` and `sampling_params` all that the store imports of this package; it needs nothing but the standard library.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Self

OPENING, CLOSING = "<tool_call>", "</tool_call>"
MAX_FUNCTIONS = 128
MAX_CALLS = 16  # of one answer; without a bound a weak model goes on for ever
NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
# A line end within JSON's signs is followed by a space or a sign, and a text has none, so the end is found without reading the JSON.
_HEAD = re.compile(rf'\n\{{"name": "({NAME.pattern})", "arguments": ')
_END = "}\n" + CLOSING


def in_words(name: str, arguments: str) -> str:
    """A call as a model says it. arguments: the text of a JSON object."""
    return f'{OPENING}\n{{"name": "{name}", "arguments": {arguments}{_END}'


# ---------------------------------------------------------------- the rule


@dataclass(frozen=True)
class Wanted:
    """Which calls an answer may consist of."""

    functions: Mapping[str, Mapping[str, Any]]  # the name of each, and the JSON schema of its arguments
    required: bool = False  # nothing but calls, at least one
    several: bool = True

    def to_json(self) -> dict[str, Any]:
        return {"functions": self.functions, "required": self.required, "several": self.several}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Raises ValueError when it is none."""
        try:
            wanted = cls(**value)
            names = list(wanted.functions)
            if not 1 <= len(names) <= MAX_FUNCTIONS or not all(NAME.fullmatch(name) for name in names):
                raise ValueError(
                    f"there must be 1 to {MAX_FUNCTIONS} functions, each with a name of the letters a to z, digits, '_' and '-'"
                )
            if not all(isinstance(schema, dict) for schema in wanted.functions.values()):
                raise ValueError("the arguments of a function must have a JSON schema")
        except (AttributeError, TypeError) as error:
            raise ValueError("calls are asked for by functions, required and several") from error
        return wanted


def lark(wanted: Wanted, options: Mapping[str, Any], tokens: Collection[str] = ()) -> str:
    """The rule, in the dialect of Lark that llguidance reads. options: added to each schema for the library.

    tokens: which of OPENING and CLOSING are one token to the model. Where the library meets such a one in a text, it takes
    only its name.
    """
    opening, closing = (f"({_text(mark)} | {mark})" if mark in tokens else _text(mark) for mark in (OPENING, CLOSING))
    line_end, head, middle = (_text(part) for part in ("\n", '\n{"name": "', "}\n"))
    further = f" ({line_end} {opening} call){{0,{MAX_CALLS - 1}}}" if wanted.several else ""
    if wanted.required:
        rules = [f"start: {opening} call{further}"]
    else:
        begun = f"(begun | free {OPENING})" if OPENING in tokens else "begun"
        rules = [f"start: free | {begun} call{further}", "free: /(?s:.*)/", f"begun[suffix={_text(OPENING)}]: /(?s:.*)/"]
    names = " | ".join(f"f{number}" for number in range(len(wanted.functions)))
    rules.append(f"call: {head} ({names}) {middle} {closing}")
    for number, (name, schema) in enumerate(wanted.functions.items()):
        called = _text(f'{name}", "arguments": ')
        rules.append(f"f{number}: {called} %json {json.dumps({**schema, **options}, ensure_ascii=False)}")
    return "\n".join(rules) + "\n"


def _text(text: str) -> str:
    """As a rule writes a text."""
    return json.dumps(text, ensure_ascii=False)


# ---------------------------------------------------------------- reading an answer


@dataclass(frozen=True)
class Said:
    """A piece of an answer: of its text, or of the arguments of one of its calls."""

    text: str
    call: int | None = None  # its number
    name: str = ""  # of the function; with the first piece of a call


class _In(Enum):
    TEXT = 1
    HEAD = 2
    ARGUMENTS = 3


class CallReader:
    """Reads an answer as it comes. However it is cut into pieces, what `push` and `end` return says the same."""

    def __init__(self) -> None:
        self.calls = 0  # whose names were told
        self._in = _In.TEXT
        self._held = ""  # of which it is not certain yet what it is
        self._arguments = ""  # of the call under way, as far as they were told

    @property
    def ends_with_a_call(self) -> bool:
        """Whether there are calls, and the last one is whole."""
        return self.calls > 0 and self._in is _In.TEXT

    def push(self, text: str) -> list[Said]:
        self._held += text
        found: list[Said] = []
        while self._read(found):
            pass
        return [said for said in found if said.text or said.name]

    def end(self) -> list[Said]:
        """What was held back, when no more comes. Of a call cut off before its name is told, there is nothing to tell."""
        held, self._held = self._held, ""
        if self._in is _In.TEXT and held and not (self.calls and held.isspace()):
            return [Said(held)]
        if self._in is _In.ARGUMENTS and held and not _is_json(self._arguments):
            return [Said(held, self.calls - 1)]
        return []

    def _read(self, found: list[Said]) -> bool:
        """Takes what is certain from what is held; whether there may be more."""
        match self._in:
            case _In.TEXT:
                return self._read_text(found)
            case _In.HEAD:
                return self._read_head(found)
            case _In.ARGUMENTS:
                return self._read_arguments(found)

    def _read_text(self, found: list[Said]) -> bool:
        text, mark, rest = self._held.partition(OPENING)
        if not mark:
            text = text[: len(text) - _beginning(text, OPENING)]
            rest = self._held[len(text.rstrip()) :]  # before a call, space is not text
        else:
            self._in = _In.HEAD
        found.append(Said(text.rstrip()))
        self._held = rest
        return bool(mark)

    def _read_head(self, found: list[Said]) -> bool:
        if (head := _HEAD.match(self._held)) is None:
            return False
        found.append(Said("", self.calls, head.group(1)))
        self.calls += 1
        self._in, self._held, self._arguments = _In.ARGUMENTS, self._held[head.end() :], ""
        return True

    def _read_arguments(self, found: list[Said]) -> bool:
        text, mark, rest = self._held.partition(_END)
        if not mark:
            rest = text[len(text) - _beginning(text, _END) :]
            text = text[: len(text) - len(rest)]
        else:
            self._in = _In.TEXT
        found.append(Said(text, self.calls - 1))
        self._arguments += text
        self._held = rest
        return bool(mark)


def _beginning(text: str, mark: str) -> int:
    """How many characters at the end of the text may begin the mark."""
    return next((count for count in range(min(len(text), len(mark) - 1), 0, -1) if text.endswith(mark[:count])), 0)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (RecursionError, ValueError):
        return False
    return True
