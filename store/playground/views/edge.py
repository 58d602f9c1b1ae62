"""How the acts of the playground answer: scripts get JSON, a form without a script a page; a visitor gets a cookie at the first act."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any
from urllib.parse import unquote_to_bytes

import structlog
from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from store.accounts.visitors import begin_visit, ensure_visitor
from store.errors import AWAY, DomainError, Unavailable
from store.playground.errors import NotText
from store.playground.views import refused
from store.playground.views.tries import one_try

log = structlog.get_logger(__name__)

View = Callable[..., HttpResponse]


def wants_json(request: HttpRequest) -> bool:
    return "application/json" in request.headers.get("accept", "")


def act(view: View) -> View:
    """A POST whose refusals a script can read; `request.visitor` is who acts where nobody is signed in."""

    @require_POST
    @never_cache
    @wraps(view)
    def acting(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            with _told_when_away():
                require_text(request)
                request.visitor = "" if request.user.is_authenticated else begin_visit(request)  # type: ignore[attr-defined]
                response = view(request, *args, **kwargs)
        except DomainError as error:
            if not wants_json(request):
                raise
            return refused.as_json(request, error)
        if not request.user.is_authenticated:
            ensure_visitor(request, response)
        return response

    return acting


def asking(view: View) -> View:
    """An act that begins an answer: it takes a try from who has no account, and a plain form never loses what was written."""

    @act
    @wraps(view)
    def asking_view(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            with _told_when_away(), one_try(request):
                return view(request, *args, **kwargs)
        except DomainError as error:
            if wants_json(request):
                raise
            return refused.as_page(request, error)

    return asking_view


@contextmanager
def _told_when_away() -> Iterator[None]:
    try:
        yield
    except AWAY as error:
        log.error("something_is_away", error=repr(error))
        raise Unavailable from error


def require_text(request: HttpRequest) -> None:
    """Django puts replacement characters for broken UTF-8; what a model is asked must be what was written. Raises NotText."""
    if request.content_type == "application/x-www-form-urlencoded":
        try:
            unquote_to_bytes(request.body).decode()
        except UnicodeDecodeError as error:
            raise NotText(param="text") from error
