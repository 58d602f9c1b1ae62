"""The messages of a conversation as people write them in JSON: which are allowed, in which order, and what they may hold."""

from __future__ import annotations

import re
from typing import Any

from inference.problems import BadExample, Place, ProblemCode

MAX_MESSAGES = 200
MAX_CONTENT_CHARS = 100_000
ROLES = ("system", "user", "assistant")
# Control characters other than tab, line feed and carriage return, and lone surrogates, which no UTF-8 text can hold.
FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")

Messages = list[dict[str, str]]


def checked_messages(messages: Any, path: tuple[str | int, ...], *, last: str) -> Messages:
    """An optional system message, then user and assistant in turn, `last` at the end. Raises BadExample."""
    if not isinstance(messages, list) or not messages:
        raise BadExample(ProblemCode.NO_MESSAGES, 'There is no list "messages" with at least one message.')
    if len(messages) > MAX_MESSAGES:
        raise BadExample(
            ProblemCode.TOO_MANY_MESSAGES,
            f"{len(messages)} messages; at most {MAX_MESSAGES} are allowed.",
            detail={"messages": len(messages), "limit": MAX_MESSAGES},
        )
    checked = [_checked_message(message, Place((*path, index), message=index)) for index, message in enumerate(messages)]
    _check_turns([message["role"] for message in checked], path, last)
    return checked


def _checked_message(message: Any, place: Place) -> dict[str, str]:
    number = (place.message or 0) + 1
    if not isinstance(message, dict):
        text = f'Message {number} must be an object with "role" and "content".'
        raise BadExample(ProblemCode.MESSAGE_NOT_AN_OBJECT, text, place=place)
    if extra := sorted(str(key) for key in message.keys() - {"role", "content"}):
        raise BadExample(
            ProblemCode.UNSUPPORTED_FIELD,
            f'Message {number} has the field "{extra[0][:40]}"; only "role" and "content" are trained on.',
            detail={"field": extra[0][:40]},
            place=place,
        )
    role = message.get("role")
    if role not in ROLES:
        raise BadExample(
            ProblemCode.UNKNOWN_ROLE,
            f"Message {number} has the role {str(role)[:40]!r}; it must be system, user or assistant.",
            detail={"role": str(role)[:40]},
            place=place,
        )
    return {"role": role, "content": checked_text(message.get("content"), place)}


def checked_text(value: Any, place: Place, *, max_chars: int = MAX_CONTENT_CHARS) -> str:
    """The text if it is one that can be trained on. Raises BadExample."""
    of_message = place.message is not None
    if not isinstance(value, str):
        code = ProblemCode.CONTENT_NOT_TEXT if of_message else ProblemCode.FIELD_NOT_TEXT
        raise BadExample(code, f"{place} must be a string.", place=place)
    if found := FORBIDDEN.search(value):
        name = f"U+{ord(found.group()):04X}"
        code = ProblemCode.CONTROL_CHARACTER if of_message else ProblemCode.FIELD_CONTROL_CHARACTER
        raise BadExample(code, f"{place} has the control character {name}; remove it.", detail={"character": name}, place=place)
    if not value.strip():
        code = ProblemCode.EMPTY_CONTENT if of_message else ProblemCode.FIELD_EMPTY
        raise BadExample(code, f"{place} is empty.", place=place)
    if len(value) > max_chars:
        raise BadExample(
            ProblemCode.CONTENT_TOO_LONG if of_message else ProblemCode.FIELD_TOO_LONG,
            f"{place} has {len(value)} characters; at most {max_chars} are allowed.",
            detail={"characters": len(value), "limit": max_chars},
            place=place,
        )
    return value


def _check_turns(roles: list[str], path: tuple[str | int, ...], last: str) -> None:
    expected = "user"
    for index, role in enumerate(roles):
        place = Place((*path, index), message=index)
        if role == "system" and index == 0:
            continue
        if role == "system":
            text = f"Message {index + 1} is a system message; only the first can be."
            raise BadExample(ProblemCode.SYSTEM_NOT_FIRST, text, place=place)
        if role != expected:
            raise BadExample(
                ProblemCode.WRONG_TURN,
                f"Message {index + 1} is from {role}, but it is the turn of {expected}.",
                detail={"role": role, "expected": expected},
                place=place,
            )
        expected = "assistant" if role == "user" else "user"
    if roles[-1] == last:
        return
    place = Place((*path, len(roles) - 1), message=len(roles) - 1)
    if last == "assistant":
        text = "The last message must be the assistant's: it is what the model learns."
        raise BadExample(ProblemCode.NOT_ENDED_BY_ASSISTANT, text, place=place)
    raise BadExample(ProblemCode.NOT_ENDED_BY_USER, "The prompt must end with a message of the user.", place=place)
