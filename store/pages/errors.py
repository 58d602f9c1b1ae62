"""The error pages. Those for a broken request or a broken server are rendered without the database and without a context."""

from __future__ import annotations

import re
import sys
from http import HTTPStatus

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.template.loader import render_to_string
from django.utils import translation

from store.errors import AWAY

_LANGUAGE = re.compile(r"^/({})(?:/|$)".format("|".join(code for code, _name in settings.LANGUAGES)))


def bad_request(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return _bare(request, "400.html", HTTPStatus.BAD_REQUEST)


def permission_denied(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return render(request, "403.html", {"reason": _said_to_people(exception)}, status=HTTPStatus.FORBIDDEN)


def page_not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return render(request, "404.html", status=HTTPStatus.NOT_FOUND)


def server_error(request: HttpRequest) -> HttpResponse:
    """Says it is for a moment when the database, the broker or the artifact store is away, and that something broke otherwise."""
    if isinstance(sys.exc_info()[1], AWAY):
        response = _bare(request, "503.html", HTTPStatus.SERVICE_UNAVAILABLE)
        response["Retry-After"] = "5"
        return response
    return _bare(request, "500.html", HTTPStatus.INTERNAL_SERVER_ERROR)


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    return render(request, "403_csrf.html", status=HTTPStatus.FORBIDDEN)


def _said_to_people(exception: Exception | None) -> str:
    return str(exception) if exception is not None and exception.args else ""


def _bare(request: HttpRequest, template: str, status: HTTPStatus) -> HttpResponse:
    """A page that asks nothing of what may be broken: no context processors, no session, no database."""
    match = _LANGUAGE.match(request.path_info)
    language = match[1] if match else translation.get_language() or settings.LANGUAGE_CODE
    with translation.override(language):
        return HttpResponse(render_to_string(template, {"LANGUAGE_CODE": language}), status=status)
