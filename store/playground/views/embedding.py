"""The chat that another site shows in a frame. The frame is sandboxed, so it is an origin of its own and has no cookie of the store's."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.cache import cache_control, never_cache
from django.views.decorators.clickjacking import xframe_options_exempt
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST, require_safe

from store.errors import AWAY, DomainError, Unavailable
from store.playground import embeds
from store.playground.views import edge, refused, tries


@require_safe
@never_cache
@xframe_options_exempt  # the policy below says who may frame it
def page(request: HttpRequest, public_id: str) -> HttpResponse:
    embed = embeds.find(public_id)
    context: dict[str, Any] = {"embed": embed, "listing": embed.listing, "version": embed.listing.current_version}
    try:
        embeds.require_free(embed)
    except embeds.NotFree as error:
        context |= {"closed": error}
    else:
        context |= {"token": embeds.begin(embed)}
    response = render(request, "playground/embed.html", context)
    policy = {"frame-ancestors": embed.origins, "sandbox": ["allow-scripts", "allow-forms", "allow-popups"]}
    response._csp_replace = policy  # type: ignore[attr-defined]  # what django-csp's decorator sets, which knows no request
    return response


@csrf_exempt  # there is no cookie by which a request could be somebody's
@require_POST
@never_cache
def ask(request: HttpRequest, public_id: str) -> HttpResponse:
    request.user = AnonymousUser()
    try:
        response = _ask(request, public_id)
    except DomainError as error:
        response = refused.as_json(request, error)
    response["Access-Control-Allow-Origin"] = "*"  # a sandboxed frame has the origin "null"
    return response


def _ask(request: HttpRequest, public_id: str) -> JsonResponse:
    try:
        edge.require_text(request)
        embed = embeds.find(public_id)
        visitor = embeds.reader_of(embed, request.POST.get("token", ""))
        with tries.one_try(request):
            asked = embeds.ask(embed, visitor=visitor, messages=request.POST.get("messages", ""))
    except AWAY as error:
        raise Unavailable from error
    return JsonResponse({"events": reverse("playground:embed_events", args=[embeds.ticket(asked)])})


@require_safe
@cache_control(public=True, max_age=3600)
def script(request: HttpRequest) -> HttpResponse:
    """What a site includes: it puts the frame in its own place."""
    response = render(request, "playground/embed.js", content_type="text/javascript; charset=utf-8")
    response["Cross-Origin-Resource-Policy"] = "cross-origin"
    return response
