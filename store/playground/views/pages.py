"""The chat pages: the list, a new conversation, a kept one, and its export."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST, require_safe

from store.accounts.models import User
from store.accounts.visitors import visitor_of
from store.billing import access
from store.catalog import naming
from store.catalog.models import Listing, Version
from store.generation import precision
from store.generation.errors import SignInNeeded
from store.playground import conversations, feedback, parameters, sharing
from store.playground.models import Conversation, Share
from store.playground.views import refused
from store.playground.views.edge import require_text
from store.playground.views.rows import rows_of

SHOWN_CONVERSATIONS = 100
SUGGESTED = 6


@never_cache
@require_safe
def chat(request: HttpRequest) -> HttpResponse:
    suggested = Listing.objects.listed().select_related("publisher", "current_version", "live_revision")
    suggested = suggested.prefetch_related("live_revision__texts").order_by("-request_count", "id")[:SUGGESTED]
    return render(request, "playground/chat.html", {**_aside(request), "suggested": suggested})


@never_cache
@require_safe
def new(request: HttpRequest) -> HttpResponse:
    """A conversation that is not one yet: it is made by its first question."""
    if not request.GET.get("model"):
        return redirect("playground:chat")
    version = naming.resolve(request.GET["model"], request.user)
    return render(request, "playground/chat.html", {**_aside(request), **_composer(request, version, {}), "rows": []})


@csrf_exempt  # nothing happens here: a visitor's page was served without a token, and the one this sets is asked for by the act
@require_POST
@never_cache
def confirm(request: HttpRequest) -> HttpResponse:
    """A visitor's first question without a script: it is shown with a token, to be sent once more."""
    if request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
        raise PermissionDenied
    require_text(request)
    version = naming.resolve(request.POST.get("model", ""), request.user)
    asking = _due(request, version)
    if asking["must_sign_in"]:
        return refused.as_page(request, SignInNeeded())
    asking |= {"version": version, "listing": version.listing, "action": reverse("playground:start"), **refused.question(request)}
    return render(request, "playground/ask.html", asking)


@never_cache
@require_safe
def conversation(request: HttpRequest, public_id: str) -> HttpResponse:
    found = conversations.find(public_id, user=request.user, visitor=visitor_of(request))
    rows = rows_of(conversations.thread(found))
    usable = Version.objects.usable_by(request.user).filter(pk=found.version_id).exists()
    ended = [row.message.request for row in rows if row.message.request is not None and not row.is_under_way]
    context = {
        **_aside(request),
        **_composer(request, found.version, found.parameters),
        "conversation": found,
        "rows": rows,
        "is_usable": usable,
        "used_tokens": ended[-1].prompt_tokens + ended[-1].completion_tokens if ended else 0,
        "spent_micro": conversations.spent_micro(found),
        "share": sharing.live(found),
        "name_chars": Share.NAME_CHARS,
    }
    return render(request, "playground/chat.html", context)


@never_cache
@require_safe
def export(request: HttpRequest, public_id: str, form: str) -> HttpResponse:
    found = conversations.find(public_id, user=request.user, visitor=visitor_of(request))
    rows = rows_of(conversations.thread(found))
    if form == "json":
        said = [{"role": row.message.role, "content": row.text, "created_at": row.message.created_at.isoformat()} for row in rows]
        value = {"title": found.title, "model": found.version.full_name, "parameters": found.parameters, "messages": said}
        response = HttpResponse(json.dumps(value, ensure_ascii=False, indent=2), content_type="application/json")
    else:
        text = render_to_string("playground/export.md", {"conversation": found, "rows": rows})
        response = HttpResponse(text, content_type="text/markdown; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{found.public_id}.{form}"'
    return response


def _aside(request: HttpRequest) -> dict[str, Any]:
    kept = conversations.of(request.user, visitor_of(request)).only("public_id", "title", "updated_at")[:SHOWN_CONVERSATIONS]
    return {"groups": _by_day(list(kept)), "is_usable": True}


def _by_day(kept: list[Conversation]) -> list[tuple[str, list[Conversation]]]:
    today = timezone.localdate()
    groups: dict[str, list[Conversation]] = {}
    for found in kept:
        age = today - timezone.localtime(found.updated_at).date()
        if age <= timedelta(days=0):
            name = _("Today")
        elif age == timedelta(days=1):
            name = _("Yesterday")
        elif age <= timedelta(days=7):
            name = _("Last 7 days")
        else:
            name = _("Earlier")
        groups.setdefault(name, []).append(found)
    return list(groups.items())


def _due(request: HttpRequest, version: Version) -> dict[str, Any]:
    due = access.due(version, request.user if isinstance(request.user, User) else None)[0].price
    return {"due": due, "must_sign_in": not due.is_free and not request.user.is_authenticated}


def _composer(request: HttpRequest, version: Version, own: dict[str, Any]) -> dict[str, Any]:
    return {
        **_due(request, version),
        "has_agreed": feedback.has_agreed(request.user),
        "version": version,
        "listing": version.listing,
        "settings": parameters.shown(version, own),
        "seed": own.get("seed", ""),
        "stop": (own.get("stop") or [""])[0],
        "precisions": precision.in_words(precision.of(version)),
        "context_length": version.weights().facts.get("context_length"),
        "written": request.GET.get("text", "")[: settings.MAX_PROMPT_CHARS],  # before they signed up
    }
