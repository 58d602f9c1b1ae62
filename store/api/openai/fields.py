"""The kinds of values a request may carry: each reads one strictly, and describes itself for the schema.

JSON's types are taken at their word (no "0.5" for 0.5, no 1 for true), as OpenAI's own server does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

from django.utils.translation import gettext as _

from store.api.errors import InvalidValue

Schema = dict[str, Any]


class Field(Protocol):
    def read(self, value: Any, param: str) -> Any:
        """The value as the store uses it. Raises InvalidValue that names `param`."""

    def schema(self) -> Schema: ...


class WrongType(InvalidValue):
    code = "invalid_type"


class Unsupported(InvalidValue):
    code = "unsupported_parameter"


class Unknown(InvalidValue):
    code = "unknown_parameter"


class Missing(InvalidValue):
    code = "missing_required_parameter"


def wrong_type(param: str, expected: str) -> WrongType:
    return WrongType(_("Invalid type for '%(param)s': expected %(expected)s.") % {"param": param, "expected": expected}, param=param)


@dataclass(frozen=True)
class Number:
    low: float
    high: float

    def read(self, value: Any, param: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise wrong_type(param, "number")
        if not math.isfinite(value) or not self.low <= value <= self.high:
            raise InvalidValue(
                _("'%(param)s' must lie between %(low)s and %(high)s.") % {"param": param, "low": self.low, "high": self.high}, param=param
            )
        return float(value)

    def schema(self) -> Schema:
        return {"type": "number", "minimum": self.low, "maximum": self.high}


@dataclass(frozen=True)
class Whole:
    low: int
    high: int

    def read(self, value: Any, param: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise wrong_type(param, "integer")
        if not self.low <= value <= self.high:
            raise InvalidValue(
                _("'%(param)s' must lie between %(low)s and %(high)s.") % {"param": param, "low": self.low, "high": self.high}, param=param
            )
        return value

    def schema(self) -> Schema:
        return {"type": "integer", "minimum": self.low, "maximum": self.high}


@dataclass(frozen=True)
class Flag:
    def read(self, value: Any, param: str) -> bool:
        if not isinstance(value, bool):
            raise wrong_type(param, "boolean")
        return value

    def schema(self) -> Schema:
        return {"type": "boolean"}


@dataclass(frozen=True)
class Text:
    max_chars: int
    min_chars: int = 0

    def read(self, value: Any, param: str) -> str:
        if not isinstance(value, str):
            raise wrong_type(param, "string")
        if len(value) < self.min_chars:
            raise InvalidValue(_("'%(param)s' must not be empty.") % {"param": param}, param=param)
        if len(value) > self.max_chars:
            raise InvalidValue(_("'%(param)s' may have at most %(max)s characters.") % {"param": param, "max": self.max_chars}, param=param)
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise InvalidValue(_("'%(param)s' holds half a character, which no text can.") % {"param": param}, param=param)
        return value

    def schema(self) -> Schema:
        return {"type": "string", "maxLength": self.max_chars} | ({"minLength": self.min_chars} if self.min_chars else {})


@dataclass(frozen=True)
class OneOrMoreTexts:
    """A string or a list of strings, read as a list."""

    most: int
    max_chars: int

    def read(self, value: Any, param: str) -> list[str]:
        one = Text(self.max_chars, min_chars=1)
        if isinstance(value, str):
            return [one.read(value, param)]
        if not isinstance(value, list):
            raise wrong_type(param, "string | array")
        if len(value) > self.most:
            raise InvalidValue(_("'%(param)s' may hold at most %(most)s entries.") % {"param": param, "most": self.most}, param=param)
        return [one.read(entry, f"{param}[{i}]") for i, entry in enumerate(value)]

    def schema(self) -> Schema:
        one = Text(self.max_chars, min_chars=1).schema()
        return {"oneOf": [one, {"type": "array", "items": one, "maxItems": self.most}]}


@dataclass(frozen=True)
class Biases:
    """An object of numbers, each named by the number of a token."""

    most: int

    def read(self, value: Any, param: str) -> dict[str, float]:
        if not isinstance(value, dict):
            raise wrong_type(param, "object")
        if len(value) > self.most:
            raise InvalidValue(_("'%(param)s' may hold at most %(most)s entries.") % {"param": param, "most": self.most}, param=param)
        for token in value:
            if not (token.isascii() and token.isdigit() and len(token) < 10):
                name = f"{param}.{token[:60]}"
                raise InvalidValue(_("'%(param)s' must be named by the number of a token.") % {"param": name}, param=param)
        return {token: Number(-100, 100).read(bias, f"{param}.{token}") for token, bias in value.items()}

    def schema(self) -> Schema:
        return {"type": "object", "additionalProperties": Number(-100, 100).schema(), "maxProperties": self.most}


@dataclass(frozen=True)
class TextMap:
    """An object of strings."""

    most: int
    max_chars: int

    def read(self, value: Any, param: str) -> dict[str, str]:
        if not isinstance(value, dict):
            raise wrong_type(param, "object")
        if len(value) > self.most:
            raise InvalidValue(_("'%(param)s' may hold at most %(most)s entries.") % {"param": param, "most": self.most}, param=param)
        return {Text(64).read(key, param): Text(self.max_chars).read(entry, f"{param}.{key}") for key, entry in value.items()}

    def schema(self) -> Schema:
        return {"type": "object", "additionalProperties": Text(self.max_chars).schema(), "maxProperties": self.most}
