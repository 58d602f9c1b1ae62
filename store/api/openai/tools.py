"""Functions that an answer may call: `tools`, `tool_choice` and `parallel_tool_calls`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from django.utils.translation import gettext as _

from inference.sampling_params import MAX_SCHEMA_CHARS, Form, Grammar, InvalidSampling
from inference.tool_calls import MAX_FUNCTIONS, Wanted
from store.api.errors import InvalidValue
from store.api.openai.conversation import named, read_name, require_function
from store.api.openai.fields import Flag, Schema, Text, Unknown, wrong_type
from store.generation.messages import MAX_NESTING, is_nested_deeper

TOOLS = ("tools", "tool_choice", "parallel_tool_calls")
_MODES = ("none", "auto", "required")
_KNOWN = ("name", "description", "parameters", "strict")
_MAX_DESCRIPTION_CHARS = 4_096


@dataclass(frozen=True)
class Tools:
    told: list[dict[str, Any]]  # what the model is told of
    rule: Grammar  # what calls its answer may consist of
    is_one: bool  # the answer is a call of the one function that was named


@dataclass(frozen=True)
class _Choice:
    names: tuple[str, ...]  # of the functions that may be called
    required: bool = False
    is_one: bool = False


def read_tools(given: Mapping[str, Any]) -> Tools | None:
    """None where nothing can be called. Raises InvalidValue that names what is wrong."""
    parallel = Flag().read(given["parallel_tool_calls"], "parallel_tool_calls") if "parallel_tool_calls" in given else None
    tools = _tools(given.get("tools", []))
    choice = _choice(given.get("tool_choice", "auto"), tuple(tool["name"] for tool in tools))
    if not choice.names:
        return None
    schemas = {tool["name"]: _arguments_of(tool) for tool in tools if tool["name"] in choice.names}
    # Asked for a call, a small model goes on to the most that are allowed: several only for who says so.
    several = not choice.required if parallel is None else parallel
    wanted = Wanted(schemas, required=choice.required, several=several and not choice.is_one)
    try:
        rule = Grammar(Form.TOOLS, wanted.to_json())
    except InvalidSampling as error:
        message = _("'%(param)s' may have at most %(max)s characters.") % {"param": "tools", "max": MAX_SCHEMA_CHARS}
        raise InvalidValue(message, param="tools") from error
    return Tools([{"type": "function", "function": tool} for tool in tools], rule, choice.is_one)


def schemas() -> Schema:
    """The three parameters as JSON Schema."""
    any_object: Schema = {"type": "object", "additionalProperties": True}
    function = {
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": named(),
            "description": Text(_MAX_DESCRIPTION_CHARS).schema(),
            "parameters": any_object,
            "strict": {"type": "boolean", "nullable": True},
        },
    }
    tool = {"type": "object", "required": ["type", "function"], "properties": {"type": {"enum": ["function"]}, "function": function}}
    one = {
        "type": "object",
        "required": ["type", "function"],
        "properties": {
            "type": {"enum": ["function"]},
            "function": {"type": "object", "required": ["name"], "properties": {"name": named()}},
        },
    }
    several = {
        "type": "object",
        "required": ["mode", "tools"],
        "properties": {"mode": {"enum": list(_MODES[1:])}, "tools": {"type": "array", "items": one, "minItems": 1}},
    }
    allowed = {
        "type": "object",
        "required": ["type", "allowed_tools"],
        "properties": {"type": {"enum": ["allowed_tools"]}, "allowed_tools": several},
    }
    return {
        "tools": {"type": "array", "items": tool, "maxItems": MAX_FUNCTIONS},
        "tool_choice": {"oneOf": [{"type": "string", "enum": list(_MODES)}, one, allowed]},
        "parallel_tool_calls": Flag().schema(),
    }


# ---------------------------------------------------------------- tools


def _tools(value: Any) -> list[dict[str, Any]]:
    """The functions, each with a name of its own."""
    if not isinstance(value, list):
        raise wrong_type("tools", "array")
    if len(value) > MAX_FUNCTIONS:
        raise InvalidValue(_("'%(param)s' may hold at most %(most)s entries.") % {"param": "tools", "most": MAX_FUNCTIONS}, param="tools")
    tools = [_tool(tool, f"tools[{i}]") for i, tool in enumerate(value)]
    seen: set[str] = set()
    for i, tool in enumerate(tools):
        if tool["name"] in seen:
            message = _("There are two functions called '%(name)s'. Give each a name of its own.") % {"name": tool["name"]}
            raise InvalidValue(message, param=f"tools[{i}].function.name")
        seen.add(tool["name"])
    return tools


def _tool(value: Any, param: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise wrong_type(param, "object")
    function, param = require_function(value, param), f"{param}.function"
    for name in function:
        if name not in _KNOWN:
            raise Unknown(_("Unrecognized request argument: '%(param)s'.") % {"param": name[:100]}, param=f"{param}.{name[:100]}")
    tool: dict[str, Any] = {"name": read_name(function.get("name"), f"{param}.name")}
    if function.get("description") is not None:
        tool["description"] = Text(_MAX_DESCRIPTION_CHARS).read(function["description"], f"{param}.description")
    if function.get("strict") is not None:
        Flag().read(function["strict"], f"{param}.strict")
    tool["parameters"] = _parameters(function.get("parameters"), f"{param}.parameters")
    return tool


def _parameters(value: Any, param: str) -> dict[str, Any]:
    if value is None:
        return {"type": "object", "properties": {}}
    if not isinstance(value, dict):
        raise wrong_type(param, "object")
    if value.get("type", "object") != "object":
        raise InvalidValue(_("'%(param)s' must be \"object\": arguments have names.") % {"param": f"{param}.type"}, param=f"{param}.type")
    if is_nested_deeper(value, MAX_NESTING):
        raise InvalidValue(_("'%(param)s' is nested more than %(most)s levels deep.") % {"param": param, "most": MAX_NESTING}, param=param)
    return value


def _arguments_of(tool: Mapping[str, Any]) -> dict[str, Any]:
    """What the rule holds a call's arguments to: an object, of those alone that are described unless others are allowed by name."""
    schema = {"type": "object", **tool["parameters"]}
    return {"additionalProperties": False, **schema} if "properties" in schema else schema


# ---------------------------------------------------------------- tool_choice


def _choice(value: Any, names: tuple[str, ...]) -> _Choice:
    if isinstance(value, str):
        if value not in _MODES:
            choices = ", ".join(_MODES)
            raise InvalidValue(
                _("'%(param)s' must be one of %(choices)s.") % {"param": "tool_choice", "choices": choices}, param="tool_choice"
            )
        if value == "required" and not names:
            _refuse_without_tools()
        return _Choice(() if value == "none" else names, required=value == "required")
    if not isinstance(value, dict):
        raise wrong_type("tool_choice", "string | object")
    if not names:
        _refuse_without_tools()
    if value.get("type") == "allowed_tools":
        return _allowed(value.get("allowed_tools"), names)
    return _Choice((_chosen(value, "tool_choice", names),), required=True, is_one=True)


def _allowed(value: Any, names: tuple[str, ...]) -> _Choice:
    param = "tool_choice.allowed_tools"
    if not isinstance(value, dict):
        raise wrong_type(param, "object")
    mode, tools = value.get("mode"), value.get("tools")
    if mode not in _MODES[1:]:
        choices = ", ".join(_MODES[1:])
        raise InvalidValue(
            _("'%(param)s' must be one of %(choices)s.") % {"param": f"{param}.mode", "choices": choices}, param=f"{param}.mode"
        )
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise wrong_type(f"{param}.tools", "array")
    if not tools:
        raise InvalidValue(_("'%(param)s' must not be empty.") % {"param": f"{param}.tools"}, param=f"{param}.tools")
    return _Choice(tuple(_chosen(tool, f"{param}.tools[{i}]", names) for i, tool in enumerate(tools)), required=mode == "required")


def _chosen(value: dict[str, Any], param: str, names: tuple[str, ...]) -> str:
    function = require_function(value, param)
    name = read_name(function.get("name"), f"{param}.function.name")
    if name not in names:
        message = _("'%(name)s' is none of the functions in 'tools'.") % {"name": name}
        raise InvalidValue(message, param=f"{param}.function.name")
    return name


def _refuse_without_tools() -> NoReturn:
    raise InvalidValue(_("'tool_choice' comes only with 'tools': say which functions there are."), param="tool_choice")
