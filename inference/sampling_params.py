"""What a request may ask of its answer: how tokens are chosen, and the rule that the answer follows.

With `protocol` and `tool_calls` all that the store imports of this package; it needs nothing but the standard library.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from inference.protocol import Message


class InvalidSampling(ValueError):
    """A sampling parameter that cannot be used."""

    def __init__(self, name: str, value: object, allowed: str) -> None:
        super().__init__(f"{name} is {str(value)[:80]!r}; it must be {allowed}.")
        self.name = name


MAX_CHOICES = 128
MAX_TOP_LOGPROBS = 20
MAX_BIASED_TOKENS = 1024
MAX_STOPS = 64
MAX_STOP_CHARS = 16_384  # of all stop strings together
_BOUNDS: dict[str, tuple[type, float, float]] = {
    "max_tokens": (int, 1, 2**31),
    "min_tokens": (int, 0, 2**31),
    "temperature": (float, 0, 100),
    "top_p": (float, 0, 1),
    "top_k": (int, 0, 2**31),
    "min_p": (float, 0, 1),
    "presence_penalty": (float, -2, 2),
    "frequency_penalty": (float, -2, 2),
    "seed": (int, -(2**63), 2**63 - 1),
    "n": (int, 1, MAX_CHOICES),
    "logprobs": (int, 0, MAX_TOP_LOGPROBS),
    "prompt_logprobs": (int, 0, MAX_TOP_LOGPROBS),
}
_OPTIONAL = ("seed", "logprobs", "prompt_logprobs")


class Form(StrEnum):
    """What kind of rule an answer follows."""

    JSON = "json"  # any JSON object
    JSON_SCHEMA = "json_schema"
    REGEX = "regex"
    CHOICE = "choice"
    TOOLS = "tools"  # calls of functions, as inference.tool_calls has them


MAX_SCHEMA_CHARS = 32_768
MAX_REGEX_CHARS = 4_096
MAX_CHOSEN_FROM = 1_000
MAX_CHOSEN_FROM_CHARS = 32_768  # of all texts together


@dataclass(frozen=True)
class Grammar(Message):
    """The rule that a whole answer follows; each of its tokens is chosen among those that keep it possible.

    `value` is a JSON schema, an object or the text of one; a regular expression; the texts to choose from; tool_calls.Wanted
    as an object; nothing for Form.JSON. Raises InvalidSampling. Whether a rule is supported is found out by who compiles it.
    """

    kind: str  # Form
    value: Any = ""  # read: str or tuple[str, ...], a schema as canonical JSON, so that equal ones are compiled once

    def __post_init__(self) -> None:
        if self.kind not in list(Form):
            raise InvalidSampling("grammar.kind", self.kind, f"one of {', '.join(Form)}")
        object.__setattr__(self, "value", _READERS[self.kind](self.value))


def _json_object(name: str, value: Any) -> str:
    try:
        found = json.loads(value) if isinstance(value, str) and len(value) <= MAX_SCHEMA_CHARS else value
        text = json.dumps({**found}, ensure_ascii=False, separators=(",", ":"), allow_nan=False)  # of what is no object: a TypeError
    except (RecursionError, TypeError, ValueError) as error:
        raise InvalidSampling(name, value, "a JSON object") from error
    return _rule(name, text, MAX_SCHEMA_CHARS)


def _chosen_from(value: Any) -> tuple[str, ...]:
    texts = tuple(value) if isinstance(value, list | tuple) else ()
    if not 1 <= len(texts) <= MAX_CHOSEN_FROM or sum(len(str(text)) for text in texts) > MAX_CHOSEN_FROM_CHARS:
        raise InvalidSampling("grammar.choice", value, f"1 to {MAX_CHOSEN_FROM} texts of {MAX_CHOSEN_FROM_CHARS} characters together")
    return tuple(_rule("grammar.choice", text, MAX_CHOSEN_FROM_CHARS) for text in texts)


def _rule(name: str, value: Any, most: int) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= most or any("\ud800" <= c <= "\udfff" for c in value):
        raise InvalidSampling(name, value, f"a text of 1 to {most} characters")
    return value


_READERS: dict[str, Callable[[Any], str | tuple[str, ...]]] = {
    Form.JSON: lambda _value: "",
    Form.JSON_SCHEMA: lambda value: _json_object("grammar.json_schema", value),
    Form.REGEX: lambda value: _rule("grammar.regex", value, MAX_REGEX_CHARS),
    Form.CHOICE: _chosen_from,
    Form.TOOLS: lambda value: _json_object("grammar.tools", value),
}


@dataclass(frozen=True)
class SamplingParams(Message):
    """How the next token is chosen. Names and meanings are OpenAI's; `top_k`, `min_p`, `min_tokens`, `ignore_eos`,
    `logprobs` and `prompt_logprobs` are vLLM's. Raises InvalidSampling for a value that cannot be used."""

    max_tokens: int = 256
    temperature: float = 1.0  # 0 is greedy
    top_p: float = 1.0
    top_k: int = 0  # 0: all
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    n: int = 1  # answers to the same prompt
    min_tokens: int = 0  # before these neither an end-of-text token nor a stop string ends the answer
    ignore_eos: bool = False
    logit_bias: Mapping[int, float] = field(default_factory=dict)  # token -> what is added to its logit, -100 to 100
    logprobs: int | None = None  # tell each token's log-probability, and those of so many of the most probable ones
    prompt_logprobs: int | None = None  # the same for the tokens of the prompt
    grammar: Grammar | None = None  # the rule that each answer follows

    def __post_init__(self) -> None:
        for name, bounds in _BOUNDS.items():
            _check_number(name, getattr(self, name), *bounds)
        if self.min_tokens > self.max_tokens:
            raise InvalidSampling("min_tokens", self.min_tokens, f"at most max_tokens, {self.max_tokens}")
        if not isinstance(self.ignore_eos, bool):
            raise InvalidSampling("ignore_eos", self.ignore_eos, "true or false")
        object.__setattr__(self, "stop", _stops(self.stop))
        object.__setattr__(self, "logit_bias", _biases(self.logit_bias))
        object.__setattr__(self, "grammar", _grammar(self.grammar))


def _check_number(name: str, value: Any, kind: type, low: float, high: float) -> None:
    if value is None and name in _OPTIONAL:
        return
    fits = isinstance(value, int) or (kind is float and isinstance(value, float))
    if isinstance(value, bool) or not fits or not low <= value <= high:  # NaN is not within any bounds
        raise InvalidSampling(name, value, f"a {'whole ' if kind is int else ''}number from {low} to {high}")


def _stops(value: Any) -> tuple[str, ...]:
    stops = (value,) if isinstance(value, str) else tuple(value or ())
    if not all(isinstance(stop, str) for stop in stops):
        raise InvalidSampling("stop", value, "a text or a list of texts")
    if len(stops) > MAX_STOPS or sum(map(len, stops)) > MAX_STOP_CHARS:
        size = f"{len(stops)} texts of {sum(map(len, stops))} characters"
        raise InvalidSampling("stop", size, f"at most {MAX_STOPS} texts of {MAX_STOP_CHARS} characters together")
    return stops


def _biases(value: Any) -> dict[int, float]:
    """JSON has the tokens as texts."""
    allowed = f"an object of at most {MAX_BIASED_TOKENS} numbers of tokens, each with a number from -100 to 100"
    if not isinstance(value, Mapping) or len(value) > MAX_BIASED_TOKENS:
        raise InvalidSampling("logit_bias", value, allowed)
    found = {}
    for token, bias in value.items():
        number = int(token) if str(token).isascii() and str(token).isdigit() and len(str(token)) < 10 else -1
        if number < 0 or isinstance(bias, bool) or not isinstance(bias, int | float) or not -100 <= bias <= 100:
            raise InvalidSampling("logit_bias", {token: bias}, allowed)
        found[number] = float(bias)
    return found


def _grammar(value: Any) -> Grammar | None:
    """JSON has a grammar as an object."""
    if value is None or isinstance(value, Grammar):
        return value
    if not isinstance(value, Mapping) or not set(value) <= {"kind", "value"} or "kind" not in value:
        raise InvalidSampling("grammar", value, "an object with kind and value")
    return Grammar(**value)
