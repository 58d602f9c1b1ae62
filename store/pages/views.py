"""The pages everybody sees: home, explore, a publisher, and the explaining ones."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils.cache import patch_vary_headers
from django.views.decorators.http import require_safe

from store.accounts.models import Publisher
from store.catalog import search
from store.catalog.models import Listing
from store.pages import following, front, indexing, learning, saved_searches, snippets, structured
from store.pages.exploring import Exploration


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    """For a visitor who brings no cookie of ours, and so is nobody in particular, kept for some seconds as a whole."""
    is_nobody = not request.GET and not {settings.SESSION_COOKIE_NAME, settings.CSRF_COOKIE_NAME} & request.COOKIES.keys()
    if is_nobody and (page := front.cached_home(request)) is not None:
        response = HttpResponse(page)
    else:
        response = render(request, "pages/home.html", front.home_page(request) | {"lessons": learning.LESSONS})
        if is_nobody:
            front.keep_home(request, response.content.decode())
    patch_vary_headers(response, ["Cookie"])  # no cache between may show one person's home to another
    return response


@require_safe
def explore(request: HttpRequest) -> HttpResponse:
    return render(request, "pages/explore.html", {"exploration": Exploration.of(request.GET), "saved": saved_searches.of(request.user)})


@require_safe
def publisher(request: HttpRequest, slug: str) -> HttpResponse:
    found = get_object_or_404(Publisher, slug=slug)
    listings = list(front.cards(Listing.objects.listed().filter(publisher=found).order_by("-request_count", "-pk"))[:60])
    context: dict[str, Any] = {
        "publisher": found,
        "listings": listings,
        "request_count": sum(listing.request_count for listing in listings),
        "role": found.role_of(request.user),
        "structured": structured.of_publisher(indexing.site_of(request), found),
        **following.of_page(request.user, publisher=found),
    }
    return render(request, "pages/publisher.html", context)


@require_safe
def developers(request: HttpRequest) -> HttpResponse:
    example = next(iter(search.find(facts=["free"]).page(size=1).listings or search.find().page(size=1).listings), None)
    limits = {
        "requests_per_minute": settings.REQUESTS_PER_MINUTE,
        "prompt_chars": settings.MAX_PROMPT_CHARS,
        "completion_tokens": settings.MAX_COMPLETION_TOKENS,
        "timeout_s": settings.GENERATION_TIMEOUT_S,
    }
    return render(request, "pages/developers.html", {"example": example, "limits": limits, **snippets.tabs(request, example)})


@require_safe
def about(request: HttpRequest) -> HttpResponse:
    return render(request, "pages/about.html", {"platform_share": settings.PLATFORM_SHARE_PERCENT})


@require_safe
def policy(request: HttpRequest) -> HttpResponse:
    return render(request, "pages/policy.html")
