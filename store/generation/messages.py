"""What a model is given to read: the asker's messages, checked, behind the version's own instructions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

from django.conf import settings
from django.utils.translation import gettext as _

from inference.sampling_params import SamplingParams
from store.catalog.models import Version
from store.generation.errors import BadMessages, BadSampling

MAX_MESSAGES = 200
MAX_CALLS = 128  # of one message
MAX_NESTING = 64  # of JSON in JSON: of a call's arguments, and of what a function is described by
ROLES = ("system", "user", "assistant", "tool")
DEFAULT_MAX_TOKENS = 512
# Control characters other than tab and line ends, and lone surrogates, which no UTF-8 text can hold.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_BOUNDS: dict[str, tuple[float, float]] = {
    "temperature": (0.0, 2.0),
    "top_p": (0.0, 1.0),
    "top_k": (0, 1000),
    "min_p": (0.0, 1.0),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
}

Messages = list[dict[str, Any]]  # {"role", "content": text}, with "tool_calls" or "tool_call_id" where functions are called
Tools = Sequence[Mapping[str, Any]]  # functions that the model is told of, as OpenAI describes them


def checked(messages: Any, tools: Tools | None = None) -> Messages:
    """The messages with nothing but what a model reads. Raises BadMessages that says which one is wrong and how to mend it."""
    if not isinstance(messages, list) or not messages:
        raise BadMessages(_("Send at least one message."), param="messages")
    if len(messages) > MAX_MESSAGES:
        raise BadMessages(
            _("There are %(count)s messages; at most %(limit)s are allowed.") % {"count": len(messages), "limit": MAX_MESSAGES},
            param="messages",
        )
    kept = [_checked_message(message, index) for index, message in enumerate(messages)]
    if kept[-1]["role"] not in ("user", "tool"):
        raise BadMessages(_("The last message must be the user's, or what a function returned."), param=f"messages[{len(kept) - 1}].role")
    _check_results(kept)
    characters = sum(len(text) for message in kept for text in _texts(message)) + sum(
        len(json.dumps(tool, ensure_ascii=False)) for tool in tools or ()
    )
    if characters > settings.MAX_PROMPT_CHARS:
        raise BadMessages(
            _("The text has %(count)s characters; at most %(limit)s are allowed. Shorten it.")
            % {"count": characters, "limit": settings.MAX_PROMPT_CHARS},
            param="messages",
            limit=settings.MAX_PROMPT_CHARS,
        )
    return kept


def _checked_message(message: Any, index: int) -> dict[str, Any]:
    where = f"messages[{index}]"
    if not isinstance(message, Mapping) or message.get("role") not in ROLES:
        raise BadMessages(
            _("Message %(number)s needs a role: system, user, assistant or tool.") % {"number": index + 1}, param=f"{where}.role"
        )
    kept = {"role": message["role"], "content": message.get("content")}
    if not isinstance(kept["content"], str):
        raise BadMessages(_("The content of message %(number)s must be text.") % {"number": index + 1}, param=f"{where}.content")
    if message["role"] == "assistant" and message.get("tool_calls"):
        kept["tool_calls"] = [
            _checked_call(call, index, f"{where}.tool_calls[{number}]") for number, call in enumerate(message["tool_calls"])
        ]
    elif message["role"] == "tool":
        kept["tool_call_id"] = str(message.get("tool_call_id", ""))
    elif not kept["content"].strip():
        raise BadMessages(_("Message %(number)s is empty. Write something.") % {"number": index + 1}, param=f"{where}.content")
    _refuse_control_characters(kept["content"], index, f"{where}.content")
    return kept


def _checked_call(call: Mapping[str, Any], index: int, where: str) -> dict[str, Any]:
    name, arguments = call["function"]["name"], call["function"]["arguments"]
    param = f"{where}.function.arguments"
    _refuse_control_characters(arguments, index, param)
    try:
        found = json.loads(arguments)
    except (RecursionError, ValueError):
        found = None
    if not isinstance(found, dict) or is_nested_deeper(found, MAX_NESTING):
        message = _("The arguments of the function called in message %(number)s must be the text of a JSON object.")
        raise BadMessages(message % {"number": index + 1}, param=param)
    return {"id": call["id"], "type": "function", "function": {"name": name, "arguments": arguments}}


def _refuse_control_characters(text: str, index: int, param: str) -> None:
    if found := _FORBIDDEN.search(text):
        raise BadMessages(
            _("Message %(number)s holds the control character %(character)s at place %(place)s. Remove it.")
            % {"number": index + 1, "character": f"U+{ord(found.group()):04X}", "place": found.start() + 1},
            param=param,
        )


def _check_results(messages: Messages) -> None:
    """That behind every message with calls stands what each of them returned, and nowhere else anything."""
    awaited: set[str] = set()
    for index, message in enumerate(messages):
        if message["role"] == "tool":
            if message["tool_call_id"] not in awaited:
                wrong = _("Message %(number)s holds what a function returned, but nothing before it calls one with that id.")
                raise BadMessages(wrong % {"number": index + 1}, param=f"messages[{index}].tool_call_id")
            awaited.remove(message["tool_call_id"])
        elif awaited:
            _refuse_unanswered(awaited, index - 1)
        if "tool_calls" in message:
            awaited = {call["id"] for call in message["tool_calls"]}
    if awaited:
        _refuse_unanswered(awaited, len(messages) - 1)


def _refuse_unanswered(awaited: set[str], index: int) -> NoReturn:
    message = _("After message %(number)s, what the call %(call)s returned is missing. Send it in a message of the role tool.")
    raise BadMessages(message % {"number": index + 1, "call": min(awaited)}, param=f"messages[{index}]")


def is_nested_deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(is_nested_deeper(entry, levels - 1) for entry in inner)


def _texts(message: Mapping[str, Any]) -> Iterator[str]:
    """All that a model reads of a message."""
    yield message["content"]
    for call in message.get("tool_calls", ()):
        yield call["function"]["name"]
        yield call["function"]["arguments"]


def complete(version: Version, messages: Messages) -> tuple[Messages, int]:
    """The messages as the model reads them, and how many of the first belong to the version itself."""
    if not version.instructions:
        return messages, 0
    return [{"role": "system", "content": version.instructions}, *messages], 1


def sampling_for(version: Version, asked: SamplingParams | Mapping[str, Any]) -> SamplingParams:
    """What was asked for, else the version's own defaults, else the store's; never more tokens than the store allows.

    Raises BadSampling when a value lies outside its bounds.
    """
    if isinstance(asked, SamplingParams):
        asked = asked.to_json()
    values = {"max_tokens": DEFAULT_MAX_TOKENS, **version.parameters, **{key: value for key, value in asked.items() if value is not None}}
    known = SamplingParams().to_json().keys()
    values = {key: value for key, value in values.items() if key in known}
    for name, (low, high) in _BOUNDS.items():
        if name in values and not (_is_number(values[name]) and low <= values[name] <= high):
            message = _("%(name)s must lie between %(low)s and %(high)s.") % {"name": name, "low": low, "high": high}
            raise BadSampling(message, param=name)
    if not _is_number(values["max_tokens"]) or values["max_tokens"] < 1:
        raise BadSampling(_("max_tokens must be at least 1."), param="max_tokens")
    values["max_tokens"] = min(int(values["max_tokens"]), settings.MAX_COMPLETION_TOKENS)
    return SamplingParams(**values)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def most_prompt_tokens(version: Version, messages: Messages, tools: Tools | None = None) -> int:
    """A bound that no tokenizer passes, nor the version's context."""
    most = most_tokens_read(messages, tools)
    return min(most, int(version.weights().facts.get("context_length") or most))


def most_tokens_read(messages: Messages, tools: Tools | None = None) -> int:
    """A token is at least one byte, and a template adds a few for each message.

    Templates write JSON in their own ways; the longest escapes all that is not ASCII and gives every entry a line of its own.
    """
    most = 64
    for message in messages:
        most += 16 + len(message["content"].encode())
        for call in message.get("tool_calls", ()):
            function = {**call["function"], "arguments": json.loads(call["function"]["arguments"])}
            most += 64 + len(json.dumps([{**call, "function": function}], indent=4))
    if tools:
        most += 1024 + sum(64 + len(json.dumps(tool, indent=4)) for tool in tools)
    return most
