"""One listing: should I use this one?"""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import AnonymousUser
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from store.accounts.models import User
from store.billing import prices
from store.billing.prices import Price
from store.catalog import downloads, views
from store.catalog.models import Listing, Version
from store.generation import precision
from store.moderation.models import Submission
from store.pages import alternatives, collections, following, front, indexing, lineage, measured, snippets, structured
from store.pages.cards import views as cards
from store.pages.version_history import versions_for
from store.ratings import pages as ratings

VERSIONS = 20


@require_safe
def listing(request: HttpRequest, publisher: str, slug: str) -> HttpResponse:
    found = front.cards(Listing.objects.reachable_by(request.user).filter(publisher__slug=publisher, slug=slug)).first()
    if found is None:
        raise Http404
    version = _shown_version(found)
    if version is not None:
        version.listing = found  # with all that is loaded already
    role = found.publisher.role_of(request.user)
    if (
        role is None
        and request.method == "GET"
        and views.is_by_a_person(request.headers.get("User-Agent", ""), request.headers.get("Sec-Purpose", ""))
    ):
        views.count(found)
    context: dict[str, Any] = {
        "listing": found,
        "version": version,
        "text": found.text(),
        "price": prices.of_version(version) if version else prices.asked(found),
        "role": role,
        "alternatives": alternatives.of(found, version),
        "share_image": cards.address_of(found),
        "summary": getattr(found, "rating_summary", None),
        **_standing(request.user, found, version),
        "collections": collections.for_listing(request.user, found),
        **following.of_page(request.user, publisher=found.publisher, listing=found),
        **ratings.section(found, request.user),
    }
    site, price = indexing.site_of(request), context["price"]
    context["structured"] = structured.of_listing(site, found, context["text"], version, price, context["summary"])
    if version is not None:
        root, served = version.weights(), precision.of(version)
        context |= {
            "bars": measured.bars(version),
            "more_measured": len(version.measurements.all()),
            "speed": measured.speed(version),
            "root": root,
            "precisions": precision.in_words(served),
            "memory": _memory(root, served),
            "price_parts": _price_parts(version),
            "approved_at": version.released_at,
            "lineage": lineage.of(version),
            "versions": _versions(request.user, found),
            "files": downloads.files_of(version),
            "may_download": found.allow_download and Version.objects.downloadable_by(request.user).filter(pk=version.pk).exists(),
            "model": found.full_name if found.current_version else version.full_name,
            **snippets.tabs(request, found, model=version.full_name),
        }
    return render(request, "pages/listing.html", context)


def _memory(root: Version, served: list[str]) -> list[tuple[str, int]]:
    """What an engine takes for these weights, in bytes by dtype: as they are served, or in all there are while that is not known."""
    known = root.facts.get("memory_bytes", {})
    return [(dtype, known[dtype]) for dtype in [dtype for dtype in served if dtype in known] or known]


def _price_parts(version: Version) -> list[tuple[Listing, Price]]:
    """Who asks for how much of the price, where it is not this GPT alone."""
    parts = [(listing, prices.asked(listing)) for listing in prices.listings_of(version.lineage())]
    asking = [(listing, price) for listing, price in parts if not price.is_free]
    return [] if asking in ([], parts[:1]) else asking


def _shown_version(listing: Listing) -> Version | None:
    """The current version; the newest one of a listing that never had any, which only members and reviewers see."""
    lineage = ("listing__publisher", "base__listing__publisher", "base__base__listing__publisher", "base__base__base__listing")
    return listing.current_version or listing.versions.select_related(*lineage).prefetch_related("measurements").first()


def _standing(user: User | AnonymousUser, listing: Listing, version: Version | None) -> dict[str, Any]:
    """What members and reviewers must know about a listing that not everybody sees as it is."""
    is_public = listing.visibility != Listing.Visibility.DRAFT and not listing.suspended_at and listing.current_version is not None
    submission = None
    if isinstance(user, User) and (user.is_reviewer or listing.publisher.role_of(user)):
        submission = Submission.objects.filter(listing=listing, state__in=Submission.OPEN).first()
    return {"is_public": is_public, "submission": submission}


def _versions(user: User | AnonymousUser, listing: Listing) -> list[dict[str, Any]]:
    """The newest that this person may see, with their first measured number."""
    versions = versions_for(user, listing).prefetch_related("measurements")
    return [{"version": version, "bar": measured.first_bar(version)} for version in versions[:VERSIONS]]
