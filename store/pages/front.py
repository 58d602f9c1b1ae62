"""What the home page shows: featured, trending and new listings, and the use cases with what they hold.

What everybody sees is made once in SHELVES_S seconds for each language and kept in the cache, so that home costs the same whatever
the store holds; the row that is a person's own is looked up for them alone. Only when the cache is away is it made each time.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

import structlog
from django.conf import settings
from django.core.cache import cache
from django.db import connection, models
from django.db.models import OuterRef, QuerySet, prefetch_related_objects
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.safestring import mark_safe
from django.utils.translation import get_language

from store.accounts.models import User
from store.billing import prices
from store.catalog import search
from store.catalog.models import Collection, CollectionItem, Listing, SearchEntry, UseCase, Version
from store.catalog.search import Count
from store.errors import AWAY
from store.generation.models import Request
from store.pages import indexing, snippets, structured
from store.pages.demo import finetune
from store.playground.models import Conversation

log = structlog.get_logger(__name__)

FEATURED, RANKED, EXAMPLES, CONTINUED, COLLECTIONS = 6, 5, 4, 3, 6
POPULAR = 24  # looked through for what is free to try and for an example of each use case
TREND_DAYS = 7
TREND_COUNTED = 1_000  # answers of one listing that are counted
SHELVES_S = 30  # how long a page of home is kept: within a minute everything on it is right


def cards(listings: QuerySet[Listing]) -> QuerySet[Listing]:
    """With what a card shows, measured numbers too, in a constant number of queries."""
    return listings.for_cards().prefetch_related("current_version__measurements")  # type: ignore[attr-defined]


def with_measurements(listings: Sequence[Listing]) -> list[Listing]:
    """Those of a page of search, with what their rows show beyond it. One query."""
    prefetch_related_objects(list(listings), "current_version__measurements")
    return list(listings)


def cached_home(request: HttpRequest) -> str | None:
    """The whole page as it was made for a visitor without cookies in the last seconds; None when there is none."""
    kept = _kept(_page_key(request))
    return kept if isinstance(kept, str) else None


def keep_home(request: HttpRequest, page: str) -> None:
    _keep(_page_key(request), page)


def home_page(request: HttpRequest) -> dict[str, Any]:
    """The context of home: the shelves that all see, kept apart from what is the person's own."""
    key = f"shelves:{get_language()}"
    shelves = _kept(key)
    if not isinstance(shelves, dict):
        shelves = _shelves()
        _keep(key, shelves)
    tried = cards(Listing.objects.listed().filter(pk=shelves["tried"])).first() if shelves["tried"] else None
    return {
        **shelves,
        "shelves": mark_safe(shelves["html"]),  # rendered by this store's own template
        "listing_count": Count(*shelves["listing_count"]),
        "tried": tried,
        "continued": _continued(request),
        "structured": structured.of_store(indexing.site_of(request)),
        **snippets.tabs(request, tried, model=shelves["model"]),
    }


def _shelves() -> dict[str, Any]:
    use_cases = list(UseCase.objects.order_by("position", "slug"))
    found = search.find(use_cases=use_cases)
    popular = with_measurements(found.page(size=POPULAR).listings)
    featured = list(cards(Listing.objects.listed().filter(featured__gt=0)).order_by("featured", "-pk")[:FEATURED]) or popular[:FEATURED]
    free = (listing for listing in [*featured, *popular] if prices.of_listing(listing).is_free)
    tried = next(free, None)  # what a visitor can try without an account
    example = tried or next(iter(featured), None)
    training = finetune.to_watch() if settings.DEMO else None
    counts = found.counts("use/")
    uses = [
        {"use_case": use_case, "count": counts[fact], "example": _first_of(use_case.pk, [*featured, *popular])}
        for use_case in use_cases
        if (fact := search.fact("use", use_case.slug)) in counts
    ]
    newest = with_measurements(search.find(sort="new", use_cases=use_cases).page(size=RANKED).listings)
    shown = {"collections": _collections(), "featured": featured, "uses": uses, "trending": _trending(), "newest": newest}
    return {
        "html": render_to_string("pages/home_shelves.html", shown),
        "examples": [[use_case.slug, use_case.name] for use_case in use_cases if search.fact("use", use_case.slug) in counts][:EXAMPLES],
        "listing_count": [found.total.number, found.total.is_least],
        "tried": tried.pk if tried else None,
        "model": example.full_name if example else "",
        "training": training.public_id if training else "",
    }


def _collections() -> list[Collection]:
    """What people share and the staff chose, each with how many listed GPTs are in it, as `size`."""
    listed = CollectionItem.objects.filter(collection=OuterRef("pk"), listing__in=Listing.objects.listed())
    sizes = listed.order_by().values("collection").annotate(size=models.Count("pk")).values("size")
    chosen = Collection.objects.filter(featured__gt=0, is_public=True).annotate(size=models.Subquery(sizes))
    return list(chosen.filter(size__gt=0).order_by("featured", "-pk")[:COLLECTIONS])


def _page_key(request: HttpRequest) -> str:
    return f"home:{get_language()}:{request.scheme}:{request.get_host()}"


def _kept(key: str) -> Any:
    try:
        return cache.get(key)
    except AWAY as error:
        log.warning("home is made anew: the cache is away", error=repr(error)[:200])
        return None


def _keep(key: str, value: Any) -> None:
    try:
        cache.set(key, value, timeout=SHELVES_S)
    except AWAY as error:
        log.warning("home is not kept: the cache is away", error=repr(error)[:200])


def _first_of(use_case_id: int, listings: list[Listing]) -> Listing | None:
    return next((listing for listing in listings if use_case_id in {use.pk for use in listing.use_cases.all()}), None)


def _trending() -> list[Listing]:
    """The listings most used lately, the older a use the less it counts; each carries its answers of the week as `recent`."""
    hot = SearchEntry.objects.filter(is_listed=True, heat__gt=0).order_by("-heat", "-listing").values_list("listing", flat=True)[:RANKED]
    ids = list(hot)
    loaded = {listing.pk: listing for listing in cards(Listing.objects.listed().filter(pk__in=ids))}
    listings = [loaded[pk] for pk in ids if pk in loaded]
    counts = _recent_answers(listings)
    for listing in listings:
        listing.recent = counts[listing.pk]  # type: ignore[attr-defined]
    return [listing for listing in listings if counts[listing.pk].number]


def _recent_answers(listings: Sequence[Listing]) -> dict[int, Count]:
    """How many answers each gave in the last days, counted up to TREND_COUNTED. One query."""
    if not listings:
        return {}
    since = timezone.now() - datetime.timedelta(days=TREND_DAYS)
    counted = []
    for listing in listings:
        rows = Request.objects.filter(version__listing=listing, created_at__gte=since, state=Request.State.FINISHED)
        rows = rows.exclude(source=Request.Source.ARENA)  # no use of theirs
        counted.append(rows.order_by().values("pk")[: TREND_COUNTED + 1])
    compiled = [rows.query.sql_with_params() for rows in counted]
    sql = " UNION ALL ".join(f"SELECT %s, COUNT(*) FROM ({one}) counted{at}" for at, (one, _parameters) in enumerate(compiled))
    values = [value for listing, (_sql, given) in zip(listings, compiled, strict=True) for value in (listing.pk, *given)]
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return {int(pk): Count(min(number, TREND_COUNTED), number > TREND_COUNTED) for pk, number in cursor.fetchall()}


def _continued(request: HttpRequest) -> list[Conversation]:
    """The conversations that a signed-in person left last."""
    if not isinstance(request.user, User):
        return []
    mine = Conversation.objects.filter(user=request.user, version__in=Version.objects.usable_by(request.user).values("pk")).order_by(
        "-updated_at"
    )
    return list(mine.select_related("version__listing__publisher", "version__listing__live_revision")[:CONTINUED])
