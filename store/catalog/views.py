"""How often the page of a GPT was looked at, by day.

A look is counted in Valkey, where it costs the page no write to the database, and brought to the database once a minute. What is
counted at the moment in which Valkey loses its memory is lost: it is a number for publishers, nothing is paid by it.
"""

from __future__ import annotations

import re
from datetime import date

import redis.exceptions
import structlog
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from store.catalog.models import Listing, ListingViews
from store.valkey import client

log = structlog.get_logger(__name__)
WAITING = "views:waiting"  # a hash: "primary key day" -> number
_MACHINE = re.compile(r"bot|crawl|spider|slurp|preview|fetch|monitor|curl|wget|python|lighthouse", re.IGNORECASE)


def is_by_a_person(browser: str, purpose: str) -> bool:
    """As far as headers tell: no program that says what it is, and no page that is only loaded ahead."""
    return bool(browser) and _MACHINE.search(browser) is None and "prefetch" not in purpose.lower()


def count(listing: Listing) -> None:
    try:
        client().hincrby(WAITING, f"{listing.pk} {timezone.localdate().isoformat()}", 1)
    except redis.exceptions.RedisError as error:
        log.warning("a view is not counted", error=repr(error)[:200])


def bring() -> int:
    """Adds what waits to the database; how many views. Two at once bring each view once."""
    with client().pipeline(transaction=True) as pipeline:
        pipeline.hgetall(WAITING)
        pipeline.delete(WAITING)
        waiting: dict[str, str] = pipeline.execute()[0]
    try:
        with transaction.atomic():
            _add({_named(name): int(number) for name, number in waiting.items()})
    except BaseException:
        with client().pipeline() as pipeline:
            for name, number in waiting.items():
                pipeline.hincrby(WAITING, name, int(number))
            pipeline.execute()
        raise
    return sum(map(int, waiting.values()))


def _named(name: str) -> tuple[int, date]:
    pk, day = name.split()
    return int(pk), date.fromisoformat(day)


def _add(views: dict[tuple[int, date], int]) -> None:
    there = set(Listing.objects.filter(pk__in={pk for pk, _day in views}).values_list("pk", flat=True))
    of_there = {key: number for key, number in sorted(views.items()) if key[0] in there}
    ListingViews.objects.bulk_create((ListingViews(listing_id=pk, day=day) for pk, day in of_there), ignore_conflicts=True)
    for (pk, day), number in of_there.items():
        ListingViews.objects.filter(listing=pk, day=day).update(number=F("number") + number)
