"""`messages` of a chat completion: what was said, which functions were called, and what they returned."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.utils.translation import gettext as _

from inference.tool_calls import NAME
from store.api.errors import InvalidValue
from store.api.openai.fields import Missing, Schema, Text, Unsupported, wrong_type
from store.generation.messages import MAX_CALLS, MAX_MESSAGES

MAX_PARTS = 64  # of one message
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
_ID = Text(128, min_chars=1)


def read_messages(value: Any) -> list[dict[str, Any]]:
    """The messages as `store.generation.messages` checks them. Raises InvalidValue that names what is wrong."""
    if not isinstance(value, list):
        raise wrong_type("messages", "array")
    if not 1 <= len(value) <= MAX_MESSAGES:
        raise InvalidValue(_("'messages' must hold 1 to %(most)s messages.") % {"most": MAX_MESSAGES}, param="messages")
    return [_message(message, f"messages[{i}]") for i, message in enumerate(value)]


def schema() -> Schema:
    part = {"type": "object", "required": ["type", "text"], "properties": {"type": {"enum": ["text"]}, "text": {"type": "string"}}}
    function = {"type": "object", "required": ["name", "arguments"], "properties": {"name": named(), "arguments": {"type": "string"}}}
    call = {
        "type": "object",
        "required": ["id", "type", "function"],
        "properties": {"id": _ID.schema(), "type": {"enum": ["function"]}, "function": function},
    }
    message = {
        "type": "object",
        "required": ["role"],
        "properties": {
            "role": {"type": "string", "enum": list(_ROLES)},
            "content": {"oneOf": [{"type": "string"}, {"type": "array", "items": part}], "nullable": True},
            "name": {"type": "string"},
            "tool_calls": {"type": "array", "items": call, "maxItems": MAX_CALLS},
            "tool_call_id": _ID.schema(),
        },
    }
    return {"type": "array", "items": message, "minItems": 1, "maxItems": MAX_MESSAGES}


def named() -> Schema:
    """The name of a function."""
    return {"type": "string", "pattern": f"^{NAME.pattern}$"}


def read_name(value: Any, param: str) -> str:
    """The name of a function."""
    if value is None:
        raise Missing(_("You must provide '%(param)s'.") % {"param": param}, param=param)
    name = Text(64).read(value, param)
    if not NAME.fullmatch(name):
        raise InvalidValue(_("'%(param)s' may hold only the letters a to z, digits, '_' and '-'.") % {"param": param}, param=param)
    return name


def require_function(value: dict[str, Any], param: str) -> dict[str, Any]:
    """What stands under `function` in an object of the type "function"."""
    if value.get("type") != "function":
        raise Unsupported(
            _("'%(param)s' must be \"function\"; there is nothing else to call.") % {"param": f"{param}.type"}, param=f"{param}.type"
        )
    function = value.get("function")
    if not isinstance(function, dict):
        raise wrong_type(f"{param}.function", "object")
    return function


def _message(value: Any, param: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise wrong_type(param, "object")
    role = value.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise InvalidValue(
            _("'%(param)s' must be one of %(roles)s.") % {"param": f"{param}.role", "roles": ", ".join(_ROLES)}, param=f"{param}.role"
        )
    known = ("role", "content", "name", "refusal", {"assistant": "tool_calls", "tool": "tool_call_id"}.get(role))
    for name in value:
        if name not in known and value[name]:
            raise Unsupported(
                _("'%(param)s' is not supported by this store.") % {"param": f"{param}.{name[:60]}"}, param=f"{param}.{name[:60]}"
            )
    if value.get("name") is not None:
        Text(64).read(value["name"], f"{param}.name")
    message: dict[str, Any] = {"role": _ROLES[role]}
    if role == "assistant" and (calls := value.get("tool_calls")):
        message["tool_calls"] = _calls(calls, f"{param}.tool_calls")
    if role == "tool":
        message["tool_call_id"] = _ID.read(value.get("tool_call_id"), f"{param}.tool_call_id")
    content = value.get("content")
    message["content"] = "" if content is None and "tool_calls" in message else _content(content, f"{param}.content")
    return message


def _calls(value: Any, param: str) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise wrong_type(param, "array")
    if len(value) > MAX_CALLS:
        raise InvalidValue(_("'%(param)s' may hold at most %(most)s entries.") % {"param": param, "most": MAX_CALLS}, param=param)
    return [_call(call, f"{param}[{i}]") for i, call in enumerate(value)]


def _call(value: Any, param: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise wrong_type(param, "object")
    function = require_function(value, param)
    name = read_name(function.get("name"), f"{param}.function.name")
    arguments = Text(settings.MAX_PROMPT_CHARS).read(function.get("arguments"), f"{param}.function.arguments")
    return {"id": _ID.read(value.get("id"), f"{param}.id"), "type": "function", "function": {"name": name, "arguments": arguments}}


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
