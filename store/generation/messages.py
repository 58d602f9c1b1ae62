"""What a model is given to read: the asker's messages, checked, behind the version's own instructions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.utils.translation import gettext as _

from inference.protocol import SamplingParams
from store.catalog.models import Version
from store.generation.errors import BadMessages, BadSampling

MAX_MESSAGES = 200
ROLES = ("system", "user", "assistant")
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


def checked(messages: Any) -> list[dict[str, str]]:
    """The messages with nothing but role and content. Raises BadMessages that says which one is wrong and how to mend it."""
    if not isinstance(messages, list) or not messages:
        raise BadMessages(_("Send at least one message."), param="messages")
    if len(messages) > MAX_MESSAGES:
        raise BadMessages(
            _("There are %(count)s messages; at most %(limit)s are allowed.") % {"count": len(messages), "limit": MAX_MESSAGES},
            param="messages",
        )
    kept = [_checked_message(message, index) for index, message in enumerate(messages)]
    if kept[-1]["role"] != "user":
        raise BadMessages(_("The last message must be the user's."), param=f"messages[{len(kept) - 1}].role")
    characters = sum(len(message["content"]) for message in kept)
    if characters > settings.MAX_PROMPT_CHARS:
        raise BadMessages(
            _("The text has %(count)s characters; at most %(limit)s are allowed. Shorten it.")
            % {"count": characters, "limit": settings.MAX_PROMPT_CHARS},
            param="messages",
            limit=settings.MAX_PROMPT_CHARS,
        )
    return kept


def _checked_message(message: Any, index: int) -> dict[str, str]:
    where = f"messages[{index}]"
    if not isinstance(message, Mapping) or message.get("role") not in ROLES:
        raise BadMessages(_("Message %(number)s needs a role: system, user or assistant.") % {"number": index + 1}, param=f"{where}.role")
    content = message.get("content")
    if not isinstance(content, str):
        raise BadMessages(_("The content of message %(number)s must be text.") % {"number": index + 1}, param=f"{where}.content")
    if not content.strip():
        raise BadMessages(_("Message %(number)s is empty. Write something.") % {"number": index + 1}, param=f"{where}.content")
    if found := _FORBIDDEN.search(content):
        raise BadMessages(
            _("Message %(number)s holds the control character %(character)s at place %(place)s. Remove it.")
            % {"number": index + 1, "character": f"U+{ord(found.group()):04X}", "place": found.start() + 1},
            param=f"{where}.content",
        )
    return {"role": message["role"], "content": content}


def complete(version: Version, messages: list[dict[str, str]]) -> tuple[list[dict[str, str]], int]:
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


def most_prompt_tokens(version: Version, messages: list[dict[str, str]]) -> int:
    """A bound that no tokenizer passes: a token is at least one byte, and a template adds a few for each message."""
    bound = sum(len(message["content"].encode()) + 16 for message in messages) + 64
    return min(bound, int(version.weights().facts.get("context_length") or bound))
