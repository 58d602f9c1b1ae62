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

from inference.protocol import MAX_BIASED_TOKENS, MAX_TOP_LOGPROBS
from store.api.errors import InvalidValue
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
from store.generation.messages import MAX_MESSAGES

MAX_PARTS = 64  # of one message
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
    "parallel_tool_calls": Flag(),
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
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "verbosity": (),
    "web_search_options": (),
}
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


class InvalidJson(InvalidValue):
    code = "invalid_json"


@dataclass(frozen=True)
class ChatParameters:
    model: str
    messages: list[dict[str, str]]  # {"role": system | user | assistant, "content": text}
    sampling: dict[str, Any] = field(default_factory=dict)  # only what was asked for, under SamplingParams' names
    stream: bool = False
    include_usage: bool = False
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
    return ChatParameters(
        model=Text(200, min_chars=1).read(given["model"], "model"),
        messages=_messages(given["messages"]),
        sampling=sampling,
        stream=stream,
        include_usage=_include_usage(given, stream=stream),
        rule=next(name for name in reversed(RULES) if name in given) if "grammar" in sampling else "",
    )


def schema() -> Schema:
    """The request as JSON Schema, from the same table that reads it."""
    part = {"type": "object", "required": ["type", "text"], "properties": {"type": {"enum": ["text"]}, "text": {"type": "string"}}}
    message = {
        "type": "object",
        "required": ["role", "content"],
        "properties": {
            "role": {"type": "string", "enum": list(_ROLES)},
            "content": {"oneOf": [{"type": "string"}, {"type": "array", "items": part}]},
            "name": {"type": "string"},
        },
    }
    at_most = format_lazy(gettext_lazy("an answer ends after {count} at the latest"), count=settings.MAX_COMPLETION_TOKENS)
    options = {"type": "object", "properties": {"include_usage": {"type": "boolean"}}}
    properties: Schema = {
        "model": {"type": "string"},
        "messages": {"type": "array", "items": message, "minItems": 1, "maxItems": MAX_MESSAGES},
        "stream": {"type": "boolean", "default": False},
        "stream_options": options,
        "max_completion_tokens": {"type": "integer", "minimum": 1, "description": at_most},
        "max_tokens": {"type": "integer", "minimum": 1, "description": at_most},
    }
    for name, kind in (SAMPLING | LOGPROBS | ACCEPTED).items():
        properties[name] = kind.schema()
    return {"type": "object", "required": ["model", "messages"], "properties": properties | rule_schemas()}


# ---------------------------------------------------------------- one parameter each


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


_USED = {"model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", *SAMPLING, *LOGPROBS, *RULES, *ACCEPTED}


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


def _messages(value: Any) -> list[dict[str, str]]:
    if not isinstance(value, list):
        raise wrong_type("messages", "array")
    if not 1 <= len(value) <= MAX_MESSAGES:
        raise InvalidValue(_("'messages' must hold 1 to %(most)s messages.") % {"most": MAX_MESSAGES}, param="messages")
    return [_message(message, f"messages[{i}]") for i, message in enumerate(value)]


def _message(value: Any, param: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise wrong_type(param, "object")
    for name in value:
        if name not in ("role", "content", "name", "refusal") and value[name]:
            raise Unsupported(
                _("'%(param)s' is not supported by this store.") % {"param": f"{param}.{name[:60]}"}, param=f"{param}.{name[:60]}"
            )
    role = value.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise InvalidValue(
            _("'%(param)s' must be one of %(roles)s.") % {"param": f"{param}.role", "roles": ", ".join(_ROLES)}, param=f"{param}.role"
        )
    if value.get("name") is not None:
        Text(64).read(value["name"], f"{param}.name")
    return {"role": _ROLES[role], "content": _content(value.get("content"), f"{param}.content")}


def _content(value: Any, param: str) -> str:
    text = Text(settings.MAX_PROMPT_CHARS)
    if isinstance(value, str):
        return text.read(value, param)
    if not isinstance(value, list):
        raise wrong_type(param, "string | array")
    if not 1 <= len(value) <= MAX_PARTS:
        raise InvalidValue(_("'%(param)s' must hold 1 to %(most)s parts.") % {"param": param, "most": MAX_PARTS}, param=param)
    return text.read("\n".join(_part(part, f"{param}[{i}]") for i, part in enumerate(value)), param)


def _part(value: Any, param: str) -> str:
    if not isinstance(value, dict):
        raise wrong_type(param, "object")
    if value.get("type") != "text":
        raise Unsupported(
            _("'%(param)s' must be a text part; this store's GPTs read nothing else.") % {"param": param}, param=f"{param}.type"
        )
    return Text(settings.MAX_PROMPT_CHARS).read(value.get("text"), f"{param}.text")
