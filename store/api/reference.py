"""The API reference as a page of the store, written from the schema: no script, so that the strict content policy holds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.generators import SchemaGenerator


@dataclass(frozen=True)
class Row:
    """One parameter or property."""

    name: str
    kind: str
    required: bool
    note: str


@dataclass(frozen=True)
class Answer:
    status: str
    kind: str
    note: str
    rows: list[Row]


@dataclass(frozen=True)
class Operation:
    id: str
    method: str
    path: str
    summary: str
    description: str
    needs_key: bool
    parameters: list[Row] = field(default_factory=list)
    body: list[Row] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)


class ApiKeyScheme(OpenApiAuthenticationExtension):
    target_class = "store.api.authentication.ApiKeyAuthentication"
    name = "apiKey"

    def get_security_definition(self, auto_schema: object) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "bearerFormat": "gs_…"}


@require_safe
def reference(request: HttpRequest) -> HttpResponse:
    document = SchemaGenerator().get_schema(request=None, public=True)
    operations = sorted(_operations(document), key=lambda operation: (not operation.path.startswith("/v1"), operation.path))
    return render(request, "api/reference.html", {"operations": operations, "error_example": _error_example()})


def plain_strings(result: Any, generator: Any, request: Any, public: bool) -> Any:
    """Schema hook: texts in the reader's language, as strings that can be written out."""
    if isinstance(result, Promise):
        return str(result)
    if isinstance(result, dict):
        return {key: plain_strings(value, generator, request, public) for key, value in result.items()}
    if isinstance(result, list | tuple):
        return [plain_strings(value, generator, request, public) for value in result]
    return result


def _operations(document: dict[str, Any]) -> Iterator[Operation]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if path.startswith("/api/schema"):
                continue
            yield Operation(
                id=operation["operationId"],
                method=method.upper(),
                path=path,
                summary=operation.get("summary", ""),
                description=operation.get("description", ""),
                needs_key={} not in operation.get("security", [{}]),
                parameters=[
                    Row(row["name"], _kind(row["schema"], document), row.get("required", False), _note(row["schema"]))
                    for row in operation.get("parameters", [])
                ],
                body=[row for content in _contents(operation.get("requestBody", {})) for row in _rows(content["schema"], document)],
                answers=list(_answers(operation, document)),
            )


def _answers(operation: dict[str, Any], document: dict[str, Any]) -> Iterator[Answer]:
    for status, answer in operation["responses"].items():
        if not status.startswith("2"):
            yield Answer(status, "application/json", _("The error envelope."), [])
            continue
        for kind, content in answer.get("content", {}).items():
            yield Answer(status, kind, answer.get("description", ""), _rows(content["schema"], document))


def _contents(body: dict[str, Any]) -> list[Any]:
    return list(body.get("content", {}).values())[:1]


def _resolved(schema: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref") or next((part["$ref"] for part in schema.get("allOf", []) if "$ref" in part), None)
    return document["components"]["schemas"][reference.rsplit("/", 1)[1]] if reference else schema


def _rows(schema: dict[str, Any], document: dict[str, Any]) -> list[Row]:
    """The properties of an object, or of the objects in a list."""
    schema = _resolved(schema, document)
    if schema.get("type") == "array":
        return _rows(schema["items"], document)
    required = schema.get("required", [])
    return [Row(name, _kind(value, document), name in required, _note(value)) for name, value in schema.get("properties", {}).items()]


def _kind(schema: dict[str, Any], document: dict[str, Any]) -> str:
    schema = _resolved(schema, document)
    if "oneOf" in schema:
        return " | ".join(dict.fromkeys(_kind(one, document) for one in schema["oneOf"]))
    if "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema["enum"])
    if schema.get("type") == "array":
        return f"{_kind(schema['items'], document)}[]"
    return str(schema.get("type", "object"))


def _note(schema: dict[str, Any]) -> str:
    """The limits of a value, as they are written in mathematics."""
    notes = [schema["description"]] if schema.get("description") else []
    if "minimum" in schema and "maximum" in schema:
        notes.append(f"{schema['minimum']} … {schema['maximum']}".replace("-", "−"))
    if "maxLength" in schema:
        notes.append(_("at most %(count)s characters") % {"count": schema["maxLength"]})
    if "default" in schema:
        notes.append(_("default: %(value)s") % {"value": json.dumps(schema["default"])})
    return " · ".join(notes)


def _error_example() -> str:
    from store.api.errors import envelope
    from store.catalog.naming import UnknownModel

    return json.dumps(envelope(UnknownModel(param="model")), indent=2, ensure_ascii=False)
