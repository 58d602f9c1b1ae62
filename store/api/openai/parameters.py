"""What a chat completion may be asked with: every parameter of the protocol is used, accepted for what it is, or refused by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from django.conf import settings
from django.utils.text import format_lazy
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from inference.sampling_params import MAX_BIASED_TOKENS, MAX_TOP_LOGPROBS
from store.api.errors import InvalidValue
from store.api.openai import conversation
from store.api.openai.fields import (
    Biases,
    Field,
    Flag,
    Missing,
    Number,
    OneOrMoreTexts,
    Schema,
    Text,
    TextMap,
    Unknown,
    Unsupported,
    Whole,
    wrong_type,
)
from store.api.openai.rules import RULES, read_rule
from store.api.openai.rules import schemas as rule_schemas
from store.api.openai.tools import TOOLS, Tools, read_tools
from store.api.openai.tools import schemas as tool_schemas

MAX_CHOICES = 4
_SEED = 2**63

SAMPLING: dict[str, Field] = {
    "temperature": Number(0, 2),
    "top_p": Number(0, 1),
    "presence_penalty": Number(-2, 2),
    "frequency_penalty": Number(-2, 2),
    "seed": Whole(-_SEED, _SEED - 1),
    "stop": OneOrMoreTexts(most=4, max_chars=200),
    "top_k": Whole(0, 1000),
    "min_p": Number(0, 1),
    "n": Whole(1, MAX_CHOICES),
    "logit_bias": Biases(most=MAX_BIASED_TOKENS),
}
LOGPROBS: dict[str, Field] = {"logprobs": Flag(), "top_logprobs": Whole(0, MAX_TOP_LOGPROBS)}
_MAX_TOKENS = Whole(1, 1_000_000)  # a bound above the store's own changes nothing: admission takes the lower one
# Taken and kept out of the way: they ask for nothing that the store would do differently.
ACCEPTED: dict[str, Field] = {
    "user": Text(512),
    "metadata": TextMap(most=16, max_chars=512),
    "store": Flag(),
    "safety_identifier": Text(512),
    "prompt_cache_key": Text(512),
}
# Not supported, except when they say what happens anyway.
REFUSED: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "function_call": ("none",),
    "functions": ([],),
    "modalities": (["text"],),
    "moderation": (),
    "prediction": (),
    "prompt_cache_options": (),
    "prompt_cache_retention": (),
    "reasoning_effort": ("none",),
    "service_tier": ("auto", "default"),
    "verbosity": (),
    "web_search_options": (),
}


class InvalidJson(InvalidValue):
    code = "invalid_json"


@dataclass(frozen=True)
class ChatParameters:
    model: str
    messages: list[dict[str, Any]]  # as store.generation.messages checks them
    sampling: dict[str, Any] = field(default_factory=dict)  # only what was asked for, under SamplingParams' names
    stream: bool = False
    include_usage: bool = False
    tools: Tools | None = None
    rule: str = ""  # the parameter that holds the rule of the answer, which the engine may refuse; "" for none

    @property
    def choices(self) -> int:
        return int(self.sampling.get("n", 1))


def read_body(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`. Raises InvalidJson when there is none, or one nested beyond reason."""
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise InvalidJson(_("The body is not UTF-8 at byte %(byte)s.") % {"byte": error.start}) from error
    except json.JSONDecodeError as error:
        where = {"line": error.lineno, "column": error.colno}
        raise InvalidJson(_("The body is not JSON: there is a mistake at line %(line)s, column %(column)s.") % where) from error
    except (RecursionError, ValueError) as error:
        raise InvalidJson(_("The body is not JSON that can be read: it is nested too deeply or holds a number that is none.")) from error
    if not isinstance(value, dict):
        raise InvalidJson(_("The body must be a JSON object."))
    return value


def read_parameters(body: Mapping[str, Any]) -> ChatParameters:
    """Raises InvalidValue, its `param` naming the first parameter that can't be used."""
    given = {name: value for name, value in body.items() if value is not None}
    for name in given:
        _refuse_unsupported(name, given[name])
    for required in ("model", "messages"):
        if required not in given:
            raise Missing(_("You must provide '%(param)s'.") % {"param": required}, param=required)

    for name, kind in ACCEPTED.items():
        if name in given:
            kind.read(given[name], name)
    stream = Flag().read(given.get("stream", False), "stream")
    sampling = _sampling(given)
    if (tools := read_tools(given)) is not None:
        if "grammar" in sampling:
            wrong = _("'%(param)s' and 'tools' can't both be given; with 'tool_choice' \"none\" nothing is called.")
            raise InvalidValue(wrong % {"param": _rule_of(given)}, param=_rule_of(given))
        sampling["grammar"] = tools.rule.to_json()
    return ChatParameters(
        model=Text(200, min_chars=1).read(given["model"], "model"),
        messages=conversation.read_messages(given["messages"]),
        sampling=sampling,
        stream=stream,
        include_usage=_include_usage(given, stream=stream),
        tools=tools,
        rule="tools" if tools else _rule_of(given) if "grammar" in sampling else "",
    )


def schema() -> Schema:
    """The request as JSON Schema, from the same table that reads it."""
    at_most = format_lazy(gettext_lazy("an answer ends after {count} at the latest"), count=settings.MAX_COMPLETION_TOKENS)
    options = {"type": "object", "properties": {"include_usage": {"type": "boolean"}}}
    properties: Schema = {
        "model": {"type": "string"},
        "messages": conversation.schema(),
        "stream": {"type": "boolean", "default": False},
        "stream_options": options,
        "max_completion_tokens": {"type": "integer", "minimum": 1, "description": at_most},
        "max_tokens": {"type": "integer", "minimum": 1, "description": at_most},
    }
    for name, kind in (SAMPLING | LOGPROBS | ACCEPTED).items():
        properties[name] = kind.schema()
    return {"type": "object", "required": ["model", "messages"], "properties": properties | rule_schemas() | tool_schemas()}


# ---------------------------------------------------------------- one parameter each


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


_USED = {
    *("model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens"),
    *(*SAMPLING, *LOGPROBS, *RULES, *TOOLS, *ACCEPTED),
}


def _refuse_unsupported(name: str, value: Any) -> None:
    if name in _USED:
        return
    if name not in REFUSED:
        raise Unknown(_("Unrecognized request argument: '%(param)s'.") % {"param": name[:100]}, param=name[:100])
    if not any(value == neutral and isinstance(value, type(neutral)) for neutral in REFUSED[name]):
        raise Unsupported(_("'%(param)s' is not supported by this store with that value. Leave it out.") % {"param": name}, param=name)


def _sampling(given: Mapping[str, Any]) -> dict[str, Any]:
    sampling = {name: SAMPLING[name].read(given[name], name) for name in SAMPLING if name in given}
    for name in ("max_tokens", "max_completion_tokens"):  # the newer name wins
        if name in given:
            sampling["max_tokens"] = _MAX_TOKENS.read(given[name], name)
    if (rule := read_rule(given)) is not None:
        sampling["grammar"] = rule.to_json()
    return sampling | _logprobs(given)


def _logprobs(given: Mapping[str, Any]) -> dict[str, Any]:
    wanted, top = (kind.read(given.get(name, neutral), name) for (name, kind), neutral in zip(LOGPROBS.items(), (False, 0), strict=True))
    if top and not wanted:
        raise InvalidValue(_("'top_logprobs' comes only with 'logprobs': set 'logprobs' to true."), param="top_logprobs")
    return {"logprobs": top} if wanted else {}


def _include_usage(given: Mapping[str, Any], *, stream: bool) -> bool:
    if "stream_options" not in given:
        return False
    options = given["stream_options"]
    if not isinstance(options, dict):
        raise wrong_type("stream_options", "object")
    if not stream:
        raise InvalidValue(_("'stream_options' is only for streams: set 'stream' to true."), param="stream_options")
    for name, value in options.items():
        if name not in ("include_usage", "include_obfuscation"):
            raise Unknown(_("Unrecognized request argument: '%(param)s'.") % {"param": name[:100]}, param=f"stream_options.{name[:100]}")
        Flag().read(value, f"stream_options.{name}")
    return bool(options.get("include_usage", False))


def _rule_of(given: Mapping[str, Any]) -> str:
    """Which parameter holds the answer's rule."""
    return next(name for name in reversed(RULES) if name in given)
