"""Rules that an answer follows: `response_format` as OpenAI has it, and `structured_outputs` as vLLM has it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from django.utils.translation import gettext as _

from inference.sampling_params import (
    MAX_CHOSEN_FROM,
    MAX_CHOSEN_FROM_CHARS,
    MAX_REGEX_CHARS,
    MAX_SCHEMA_CHARS,
    Form,
    Grammar,
    InvalidSampling,
)
from store.api.errors import InvalidValue
from store.api.openai.fields import Flag, Missing, Schema, Text, Unknown, Unsupported, wrong_type

RULES = ("response_format", "structured_outputs")
_FORMATS = ("text", "json_object", "json_schema")
_KINDS = ("json", "regex", "choice", "json_object")
_NOT_SUPPORTED = (
    "grammar",
    "structural_tag",
    "disable_fallback",
    "disable_any_whitespace",
    "disable_additional_properties",
    "whitespace_pattern",
)
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def read_rule(given: Mapping[str, Any]) -> Grammar | None:
    """What the answer must follow. Raises InvalidValue that names what is wrong."""
    rule = _response_format(given["response_format"]) if "response_format" in given else None
    if "structured_outputs" not in given:
        return rule
    if rule is not None:
        raise InvalidValue(_("'response_format' and 'structured_outputs' can't both be given."), param="structured_outputs")
    return _structured_outputs(given["structured_outputs"])


def schemas() -> Schema:
    """Both parameters as JSON Schema."""
    any_object: Schema = {"type": "object", "additionalProperties": True}
    named = {
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"type": "string", "pattern": f"^{_NAME.pattern}$"},
            "description": {"type": "string"},
            "schema": any_object,
            "strict": {"type": "boolean", "nullable": True},
        },
    }
    texts = {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1, "maxItems": MAX_CHOSEN_FROM}
    return {
        "response_format": {
            "type": "object",
            "required": ["type"],
            "properties": {"type": {"type": "string", "enum": list(_FORMATS)}, "json_schema": named},
        },
        "structured_outputs": {
            "type": "object",
            "properties": {
                "json": any_object,
                "regex": Text(MAX_REGEX_CHARS, min_chars=1).schema(),
                "choice": texts,
                "json_object": {"type": "boolean"},
            },
            "minProperties": 1,
            "maxProperties": 1,
        },
    }


def _response_format(value: Any) -> Grammar | None:
    if not isinstance(value, dict):
        raise wrong_type("response_format", "object")
    kind = value.get("type")
    if kind not in _FORMATS:
        choices = ", ".join(_FORMATS)
        raise InvalidValue(
            _("'%(param)s' must be one of %(choices)s.") % {"param": "response_format.type", "choices": choices},
            param="response_format.type",
        )
    _refuse_others(value, ("type", "json_schema") if kind == "json_schema" else ("type",), "response_format")
    if kind == "json_schema":
        return _named_schema(value.get("json_schema"), "response_format.json_schema")
    return Grammar(Form.JSON) if kind == "json_object" else None


def _named_schema(value: Any, param: str) -> Grammar:
    if value is None:
        raise Missing(_("You must provide '%(param)s'.") % {"param": param}, param=param)
    if not isinstance(value, dict):
        raise wrong_type(param, "object")
    _refuse_others(value, ("name", "description", "schema", "strict"), param)
    if value.get("name") is None:
        raise Missing(_("You must provide '%(param)s'.") % {"param": f"{param}.name"}, param=f"{param}.name")
    if not _NAME.fullmatch(Text(64).read(value["name"], f"{param}.name")):
        message = _("'%(param)s' may hold only the letters a to z, digits, '_' and '-'.") % {"param": f"{param}.name"}
        raise InvalidValue(message, param=f"{param}.name")
    if value.get("description") is not None:
        Text(4_096).read(value["description"], f"{param}.description")
    if value.get("strict") is not None:
        Flag().read(value["strict"], f"{param}.strict")
    if value.get("schema") is None:
        return Grammar(Form.JSON)
    return _schema(value["schema"], f"{param}.schema")


def _structured_outputs(value: Any) -> Grammar:
    if not isinstance(value, dict):
        raise wrong_type("structured_outputs", "object")
    asked = {name: entry for name, entry in value.items() if entry is not None and entry is not False}
    for name in asked:
        if name in _NOT_SUPPORTED:
            param = f"structured_outputs.{name}"
            raise Unsupported(_("'%(param)s' is not supported by this store.") % {"param": param}, param=param)
    _refuse_others(asked, _KINDS, "structured_outputs")
    if len(asked) != 1:
        raise InvalidValue(
            _("'structured_outputs' must hold exactly one of %(choices)s.") % {"choices": ", ".join(_KINDS)}, param="structured_outputs"
        )
    ((name, rule),) = asked.items()
    param = f"structured_outputs.{name}"
    match name:
        case "json_object":
            Flag().read(rule, param)
            return Grammar(Form.JSON)
        case "json":
            return _schema(rule, param)
        case "regex":
            return Grammar(Form.REGEX, Text(MAX_REGEX_CHARS, min_chars=1).read(rule, param))
        case _:
            return _choice(rule, param)


def _schema(value: Any, param: str) -> Grammar:
    if not isinstance(value, dict | str):
        raise wrong_type(param, "object")
    try:
        return Grammar(Form.JSON_SCHEMA, value)
    except InvalidSampling as error:
        message = _("'%(param)s' must be a JSON schema of at most %(max)s characters.") % {"param": param, "max": MAX_SCHEMA_CHARS}
        raise InvalidValue(message, param=param) from error


def _choice(value: Any, param: str) -> Grammar:
    if not isinstance(value, list):
        raise wrong_type(param, "array")
    for number, text in enumerate(value):
        Text(MAX_CHOSEN_FROM_CHARS, min_chars=1).read(text, f"{param}[{number}]")
    try:
        return Grammar(Form.CHOICE, value)
    except InvalidSampling as error:
        bounds = {"param": param, "most": MAX_CHOSEN_FROM, "max": MAX_CHOSEN_FROM_CHARS}
        message = _("'%(param)s' must hold 1 to %(most)s texts of at most %(max)s characters together.") % bounds
        raise InvalidValue(message, param=param) from error


def _refuse_others(value: Mapping[str, Any], known: tuple[str, ...], param: str) -> None:
    for name in value:
        if name not in known:
            raise Unknown(_("Unrecognized request argument: '%(param)s'.") % {"param": name[:100]}, param=f"{param}.{name[:100]}")
