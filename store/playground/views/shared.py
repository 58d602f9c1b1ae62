"""Shared conversations: the page for whoever has the address, and the acts of who shares."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from store.catalog.models import Listing
from store.playground import conversations, sharing
from store.playground.errors import Revoked
from store.playground.models import Conversation
from store.playground.views.acts import who
from store.playground.views.edge import act, wants_json


@never_cache
@require_safe
def shared(request: HttpRequest, public_id: str) -> HttpResponse:
    """The copy, never the conversation. Taken back, it says so with 410."""
    try:
        found = sharing.find(public_id)
    except Revoked as error:
        return _not_indexed(render(request, "playground/unshared.html", {"error": error}, status=error.status))
    is_mine = request.user.is_authenticated and found.user_id == request.user.pk
    context = {
        "share": found,
        "listing": found.version.listing,
        "is_reachable": Listing.objects.reachable_by(request.user).filter(pk=found.version.listing_id).exists(),
        "conversation": found.conversation if is_mine else None,
    }
    return _not_indexed(render(request, "playground/shared.html", context))


def _not_indexed(response: HttpResponse) -> HttpResponse:
    response["X-Robots-Tag"] = "noindex, nofollow, noarchive"
    return response


@act
def share(request: HttpRequest, public_id: str) -> HttpResponse:
    made = sharing.share(conversations.find(public_id, **who(request)), user=request.user, name=request.POST.get("name", ""))
    return _went(request, reverse("playground:shared", args=[made.public_id]))


@act
def unshare(request: HttpRequest, public_id: str) -> HttpResponse:
    conversation: Conversation = conversations.find(public_id, **who(request))
    sharing.revoke(conversation)
    return _went(request, reverse("playground:conversation", args=[conversation.public_id]))


def _went(request: HttpRequest, url: str) -> HttpResponse:
    return JsonResponse({"url": url}) if wants_json(request) else redirect(url)
