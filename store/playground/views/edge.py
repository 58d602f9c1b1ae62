"""How the acts of the playground answer: scripts get JSON, a form without a script a page; a visitor gets a cookie at the first act."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Any
from urllib.parse import unquote_to_bytes

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from store import ratelimit
from store.accounts.visitors import begin_visit, ensure_visitor, visitor_of
from store.errors import DomainError, TooMany
from store.playground.errors import NotText

NEW_VISITORS_PER_HOUR = 240  # from one network address: bounds what throwing the cookie away can win

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
            _require_text(request)
            request.visitor = _visitor(request)  # type: ignore[attr-defined]
            response = view(request, *args, **kwargs)
        except DomainError as error:
            if not wants_json(request):
                raise
            return refused(request, error)
        if not request.user.is_authenticated:
            ensure_visitor(request, response)
        return response

    return acting


def _require_text(request: HttpRequest) -> None:
    """Django puts replacement characters for broken UTF-8; what a model is asked must be what was written. Raises NotText."""
    if request.content_type == "application/x-www-form-urlencoded":
        try:
            unquote_to_bytes(request.body).decode()
        except UnicodeDecodeError as error:
            raise NotText(param="text") from error


def _visitor(request: HttpRequest) -> str:
    if request.user.is_authenticated:
        return ""
    if not visitor_of(request):
        ratelimit.require(f"visitors:{request.META.get('REMOTE_ADDR', '')}", limit=NEW_VISITORS_PER_HOUR, per_s=3600)
    return begin_visit(request)


def refused(request: HttpRequest, error: DomainError) -> JsonResponse:
    """What was wrong and a way out, for the script to show in place."""
    body: dict[str, Any] = {"code": error.code, "message": str(error), "param": error.param}
    if way_out := _way_out(request, error):
        body["way_out"] = {"label": way_out[0], "url": way_out[1]}
    response = JsonResponse({"error": body}, status=error.status)
    if isinstance(error, TooMany):
        response["Retry-After"] = str(math.ceil(error.retry_after_s))
    return response


def _way_out(request: HttpRequest, error: DomainError) -> tuple[str, str] | None:
    match error.code:
        case "tries_used_up":
            return _("Sign up"), reverse("account_signup")
        case "sign_in_required":
            return _("Sign in"), reverse("account_login")
        case "insufficient_credit":
            return _("Open your wallet"), reverse("billing:wallet")
        case "model_not_found":
            return _("Find another GPT"), reverse("pages:explore")
    return None
