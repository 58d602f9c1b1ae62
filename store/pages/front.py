"""What the home page shows: featured, trending and new listings, and the use cases with what they hold."""

from __future__ import annotations

import datetime
from typing import Any

from django.conf import settings
from django.db.models import Count, QuerySet
from django.http import HttpRequest
from django.utils import timezone

from store.billing import prices
from store.catalog import search
from store.catalog.models import Listing
from store.generation.models import Request
from store.pages import snippets
from store.pages.demo import finetune

FEATURED, RANKED = 6, 5
TREND_DAYS = 7


def cards(listings: QuerySet[Listing]) -> QuerySet[Listing]:
    """With what a card shows, measured numbers too, in a constant number of queries."""
    return listings.for_cards().prefetch_related("current_version__measurements")  # type: ignore[attr-defined]


def home_page(request: HttpRequest) -> dict[str, Any]:
    listed = Listing.objects.listed()
    popular = list(cards(search.find())[:24])
    featured = list(cards(listed.filter(featured__gt=0)).order_by("featured", "-pk")[:FEATURED]) or popular[:FEATURED]
    free = (listing for listing in [*featured, *popular] if prices.of_listing(listing).is_free)
    tried = next(free, None)  # what a visitor can try without an account
    uses = [
        {"use_case": use_case, "count": count, "example": _first_of(use_case.pk, [*featured, *popular])}
        for use_case, count in search.use_case_counts(listed)
    ]
    return {
        "listing_count": listed.count(),
        "publisher_count": listed.aggregate(publishers=Count("publisher", distinct=True))["publishers"],
        "featured": featured,
        "tried": tried,
        "uses": uses,
        "trending": _trending(),
        "training": finetune.to_watch() if settings.DEMO else None,
        "newest": list(cards(listed).order_by("-published_at", "-pk")[:RANKED]),
        **snippets.tabs(request, tried or next(iter(featured), None)),
    }


def _first_of(use_case_id: int, listings: list[Listing]) -> Listing | None:
    return next((listing for listing in listings if use_case_id in {use.pk for use in listing.use_cases.all()}), None)


def _trending() -> list[Listing]:
    """The listings most used in the last days; each carries the number as `recent_requests`."""
    since = timezone.now() - datetime.timedelta(days=TREND_DAYS)
    listed = Listing.objects.listed()
    counts = dict(
        Request.objects.filter(created_at__gte=since, state=Request.State.FINISHED, version__listing__in=listed)
        .values_list("version__listing")
        .annotate(requests=Count("pk"))
        .order_by("-requests")[:RANKED]
    )
    listings = sorted(cards(listed.filter(pk__in=counts)), key=lambda listing: -counts[listing.pk])
    for listing in listings:
        listing.recent_requests = counts[listing.pk]  # type: ignore[attr-defined]
    return listings
