"""In which order, and which of a listing's ratings, a reader asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from django.db.models import Q, QuerySet
from django.utils.translation import gettext_lazy as _

from store.catalog.models import Listing
from store.keyset import Page
from store.ratings.models import Rating

# The column, and whether its highest values come first; among equals the newest do.
ORDERS = {
    "new": ("pk", True),
    "helpful": ("helpful_count", True),
    "used": ("tokens_used", True),
    "high": ("stars", True),
    "low": ("stars", False),
}
ORDER_NAMES = {
    "new": _("Newest"),
    "helpful": _("Most helpful"),
    "used": _("Most used"),
    "high": _("Most stars"),
    "low": _("Fewest stars"),
}


@dataclass(frozen=True)
class Question:
    """Filters that must all hold; "" and None ask for nothing."""

    stars: int | None = None
    version: str = ""  # its number
    language: str = ""
    sort: str = "new"

    @property
    def filters(self) -> bool:
        return replace(self, sort="new") != Question()


@dataclass(frozen=True)
class Offer:
    """What the visible ratings of a listing can be filtered by."""

    versions: list[str]  # numbers, the newest first
    languages: list[str]


def visible(listing: Listing) -> QuerySet[Rating]:
    return Rating.objects.filter(listing=listing, hidden_at__isnull=True, withdrawn_at__isnull=True)


def offer(listing: Listing) -> Offer:
    rows = visible(listing).order_by()
    versions = rows.values_list("version__number", flat=True).order_by("-version_id").distinct()
    return Offer(list(dict.fromkeys(versions)), sorted(set(rows.values_list("language", flat=True).distinct())))


def understand(asked: Mapping[str, str], offered: Offer) -> Question:
    """What an address asks for; a part of it that means nothing asks for nothing."""
    stars, version, language, sort = (asked.get(name, "") for name in ("stars", "version", "language", "sort"))
    return Question(
        stars=int(stars) if stars in {"1", "2", "3", "4", "5"} else None,
        version=version if version in offered.versions else "",
        language=language if language in offered.languages else "",
        sort=sort if sort in ORDERS else "new",
    )


def read(listing: Listing, question: Question, *, before: str = "", size: int = 25) -> Page:
    """Those with text; where filters are given, all that they leave. `before` is the public id that ended the page before."""
    rows = visible(listing).select_related("version", "reply")
    if question.stars:
        rows = rows.filter(stars=question.stars)
    if question.version:
        rows = rows.filter(version__number=question.version)
    if question.language:
        rows = rows.filter(language=question.language)
    if not question.filters:
        rows = rows.exclude(text="")
    return _page(rows, question.sort, before, size)


def _page(rows: QuerySet[Rating], sort: str, before: str, size: int) -> Page:
    column, highest_first = ORDERS[sort]
    last = Rating.objects.filter(public_id=before).values_list(column, "pk").first() if before and "\0" not in before else None
    if last:
        key, pk = last
        beyond = Q(**{f"{column}__{'lt' if highest_first else 'gt'}": key})
        rows = rows.filter(beyond | Q(**{column: key, "pk__lt": pk}))
    found = list(rows.order_by(f"-{column}" if highest_first else column, "-pk")[: size + 1])
    return Page(rows=found[:size], before=found[size - 1].public_id if len(found) > size else "")
