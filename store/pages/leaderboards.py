"""Which GPTs do a task best, by what was measured: for each use case one board, on one set of items, with intervals.

Only current versions of listed GPTs are on a board, measured on at least MIN_ITEMS items with an interval. Boards are never mixed
from two editions of a suite: of several, the one on which most GPTs were measured is shown. A place is a range: from one behind
those that are surely better to one before those that are surely worse, by whether the 95 % intervals meet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from django.db.models import F, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from store.catalog.models import Listing, Measurement, UseCase
from store.jobs import suites
from store.pages import front, measured
from store.pages.measured import Bar

SHOWN = 50
MIN_ITEMS = 10
LOOKED_THROUGH = 300  # the best by the number alone, before what has not enough data is left out


@dataclass(frozen=True)
class Place:
    """A GPT on a board. `first` and `last`: between which places it stands."""

    first: int
    last: int
    listing: Listing
    bar: Bar
    items: int


@dataclass(frozen=True)
class Board:
    label: str
    about: str
    suite_sha256: str
    places: Sequence[Place]


@require_safe
def leaderboard(request: HttpRequest) -> HttpResponse:
    use_cases = [use_case for use_case in UseCase.objects.order_by("position", "slug") if suites.headline_of_use_case(use_case.slug)]
    asked = request.GET.get("use_case", "")
    chosen = next((use_case for use_case in use_cases if use_case.slug == asked), None) or next(iter(use_cases), None)
    context = {
        "use_cases": use_cases,
        "chosen": chosen,
        "unknown": bool(asked) and (chosen is None or chosen.slug != asked),
        "board": board(chosen.slug) if chosen is not None else None,
        "min_items": MIN_ITEMS,
    }
    return render(request, "pages/leaderboards.html", context)


def board(use_case: str) -> Board:
    """In a constant number of queries."""
    name = suites.headline_of_use_case(use_case)
    suite = suites.SUITES[suites.parts_of(name)[0]]
    rows = _measured(name)
    editions = Counter(row.method["suite_sha256"] for row in rows)
    edition = editions.most_common(1)[0][0] if editions else ""
    chosen = [row for row in rows if row.method["suite_sha256"] == edition][:SHOWN]
    loaded = {listing.current_version_id: listing for listing in front.cards(_listings(chosen))}
    found = [row for row in chosen if row.version_id in loaded]
    longest = 100.0 if found and found[0].unit == "%" else max((row.high or row.value for row in found), default=1.0) * 1.08
    places = [_place(row, found, loaded[row.version_id], longest) for row in found]
    return Board(suites.label_of(name), str(suite.about), edition, places)


def _measured(name: str) -> list[Measurement]:
    """The best first: every headline of a use case is a number of which more is better."""
    current = Measurement.objects.filter(name=name, low__isnull=False, high__isnull=False, version__listing__current_version=F("version"))
    listed = current.filter(version__listing__in=Listing.objects.listed())
    rows = listed.order_by("-value", "pk")[:LOOKED_THROUGH]
    return [row for row in rows if row.method.get("suite_sha256") and _items(row) >= MIN_ITEMS]


def _listings(rows: Sequence[Measurement]) -> QuerySet[Listing]:
    return Listing.objects.listed().filter(current_version__in=[row.version_id for row in rows])


def _items(row: Measurement) -> int:
    items = row.method.get("items")
    return items if isinstance(items, int) else 0


def _place(row: Measurement, rows: Sequence[Measurement], listing: Listing, longest: float) -> Place:
    assert row.low is not None
    assert row.high is not None
    better = sum(other.low is not None and other.low > row.high for other in rows)
    worse = sum(other.high is not None and other.high < row.low for other in rows)
    return Place(1 + better, len(rows) - worse, listing, measured.bar(row, longest=longest), _items(row))
