"""How a GPT was used, day by day: counted from its requests and ratings, so that every number can be counted again; but for views.

Without the arena's: there the store chose it, not a person.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from typing import Any

from django.db.models import Avg, Count, Q, Sum
from django.db.models.functions import TruncDate
from django.utils import timezone

from store.catalog.models import Listing
from store.generation.models import Request
from store.ratings import reading

PERIODS_DAYS = (7, 30, 90)
COUNTED = ("views", "requests", "tries", "embedded", "chats", "api", "people", "input_tokens", "output_tokens", "ratings")
Source = Request.Source


@dataclass
class Day:
    day: date
    views: int = 0  # of its page
    requests: int = 0
    tries: int = 0  # from the try-it box
    embedded: int = 0  # on other sites
    chats: int = 0
    api: int = 0
    people: int = 0  # with an account
    input_tokens: int = 0
    output_tokens: int = 0
    ratings: int = 0
    stars: float | None = None  # their mean


@dataclass
class Use:
    days: Sequence[Day]
    people: int = 0  # in the whole time: fewer than the days' sum
    tried: int = 0  # browsers and accounts that used the try-it box
    stayed: int = 0  # accounts of those that also chatted or called it
    rated: int = 0  # accounts of those whose rating stands
    total: dict[str, int] = field(default_factory=dict)

    @property
    def percent(self) -> dict[str, float | None]:
        """`tried` of the views, `stayed` and `rated` of who tried it, 0 to 100; None where there is nothing to be a share of.

        A try may have had no view that counts: the home page has a try-it box too, and a team's own views are left out.
        """
        parts = {"tried": (self.tried, self.total["views"]), "stayed": (self.stayed, self.tried), "rated": (self.rated, self.tried)}
        return {name: 100 * part / whole if 0 < whole >= part else None for name, (part, whole) in parts.items()}


def use_of(listing: Listing, *, days: int) -> Use:
    """The last `days` days, today among them, in a fixed number of queries."""
    first = timezone.localdate() - timedelta(days=days - 1)
    by_day = {first + timedelta(days=number): Day(first + timedelta(days=number)) for number in range(days)}
    requests = Request.objects.filter(version__listing=listing, created_at__gte=_begin(first)).exclude(source=Source.ARENA).order_by()
    for row in _requests_by_day(requests):
        if (day := by_day.get(row.pop("day"))) is not None:
            day.__dict__.update({name: value or 0 for name, value in row.items()})
    for viewed, number in listing.views.filter(day__gte=first).values_list("day", "number"):
        if (day := by_day.get(viewed)) is not None:
            day.views = number
    for row in _ratings_by_day(listing, first):
        if (day := by_day.get(row["day"])) is not None:
            day.ratings, day.stars = row["count"], row["mean"]
    use = Use(list(by_day.values()), total={name: sum(getattr(day, name) for day in by_day.values()) for name in COUNTED})
    use.people = requests.aggregate(people=Count("user", distinct=True))["people"]
    tried = requests.filter(source=Source.TRY)
    counts = tried.aggregate(people=Count("user", distinct=True), browsers=Count("visitor", filter=Q(user=None), distinct=True))
    use.tried = counts["people"] + counts["browsers"]
    triers = tried.filter(user__isnull=False).values("user")
    stayed = requests.exclude(source=Source.TRY).filter(user__in=triers)
    use.stayed = stayed.aggregate(people=Count("user", distinct=True))["people"]
    use.rated = reading.visible(listing).filter(created_at__gte=_begin(first), user__in=triers).count()
    return use


def rows(use: Use) -> Iterator[list[Any]]:
    """As a table: a head, then a row for each day."""
    yield ["day", *COUNTED, "mean_stars"]
    for day in use.days:
        stars = "" if day.stars is None else round(day.stars, 2)
        yield [day.day.isoformat(), *(getattr(day, name) for name in COUNTED), stars]


def _begin(day: date) -> datetime:
    return timezone.make_aware(datetime.combine(day, time.min))


def _requests_by_day(requests: Any) -> Any:
    sources = {"tries": Source.TRY, "embedded": Source.EMBED, "chats": Source.CHAT, "api": Source.API}
    return (
        requests.annotate(day=TruncDate("created_at"))
        .values("day")
        .annotate(
            requests=Count("pk"),
            people=Count("user", distinct=True),
            input_tokens=Sum("prompt_tokens"),
            output_tokens=Sum("completion_tokens"),
            **{name: Count("pk", filter=Q(source=source)) for name, source in sources.items()},
        )
    )


def _ratings_by_day(listing: Listing, first: date) -> Any:
    given = reading.visible(listing).filter(created_at__gte=_begin(first)).order_by()
    return given.annotate(day=TruncDate("created_at")).values("day").annotate(count=Count("pk"), mean=Avg("stars"))
