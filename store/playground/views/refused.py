"""What a refused act answers: a script gets the reason and a way out as JSON, a plain form a page that still holds what was written."""

from __future__ import annotations

import math
from typing import Any
from urllib.parse import urlencode, urlsplit

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _

from store.errors import DomainError, TooMany
from store.playground.parameters import NAMES

MAX_CARRIED_CHARS = 2000  # of an address with what was written in it; browsers and proxies take no endless ones


def as_json(request: HttpRequest, error: DomainError) -> JsonResponse:
    """For the script to show in place. It keeps what was written by itself."""
    body: dict[str, Any] = {"code": error.code, "message": str(error), "param": error.param}
    if way_out := _way_out(error, back=_asking_page(request)):
        body["way_out"] = {"label": way_out[0], "url": way_out[1]}
    return _with_retry(JsonResponse({"error": body}, status=error.status), error)


def as_page(request: HttpRequest, error: DomainError) -> HttpResponse:
    """The question again, to be sent again, with what was wrong."""
    label, url = _way_out(error, back=_page_with_text(request)) or ("", "")
    context = {"error": error, "act": label, "href": url, "action": request.path, **question(request)}
    return _with_retry(render(request, "playground/ask.html", context, status=error.status), error)


def question(request: HttpRequest) -> dict[str, Any]:
    """What a plain form asked, and all that has to be sent with it again."""
    kept = [(name, request.POST[name]) for name in ("model", "use_case", *NAMES) if request.POST.get(name)]
    return {"text": request.POST.get("text", ""), "kept": kept}


def _with_retry(response: HttpResponse, error: DomainError) -> Any:
    if isinstance(error, TooMany):
        response["Retry-After"] = str(math.ceil(error.retry_after_s))
    return response


def _way_out(error: DomainError, *, back: str) -> tuple[str, str] | None:
    then = f"?{urlencode({'next': back})}" if back else ""
    match error.code:
        case "tries_used_up":
            return _("Sign up"), reverse("account_signup") + then
        case "sign_in_required":
            return _("Sign in"), reverse("account_login") + then
        case "insufficient_credit":
            return _("Open your wallet"), reverse("billing:wallet")
        case "model_not_found":
            return _("Find another GPT"), reverse("pages:explore")
    return None


def _asking_page(request: HttpRequest) -> str:
    """The page of the store whose script asked."""
    page = request.headers.get("referer", "")
    if not url_has_allowed_host_and_scheme(page, allowed_hosts={request.get_host()}):
        return ""
    parts = urlsplit(page)
    return parts.path + (f"?{parts.query}" if parts.query else "")


def _page_with_text(request: HttpRequest) -> str:
    """A chat page that holds what was written, unless that is too long for an address."""
    match = request.resolver_match
    asks_again = match is not None and match.url_name == "ask"
    page = reverse("playground:conversation", kwargs=match.kwargs) if match and asks_again else reverse("playground:new")
    query = {} if asks_again else {"model": request.POST.get("model", "")}
    with_text = f"{page}?{urlencode(query | {'text': request.POST.get('text', '')})}"
    return with_text if len(with_text) <= MAX_CARRIED_CHARS else f"{page}?{urlencode(query)}".removesuffix("?")
