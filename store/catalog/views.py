"""How often the page of a GPT was looked at, by day.

A look is counted in Valkey, where it costs the page no write to the database, and brought to the database once a minute. What is
counted at the moment in which Valkey loses its memory is lost: it is a number for publishers, nothing is paid by it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date

import structlog
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from store.catalog.models import Listing, ListingViews
from store.errors import AWAY
from store.valkey import async_client, client

log = structlog.get_logger(__name__)
WAITING = "views:waiting"  # a hash: "publisher/name day" -> number
_MACHINE = re.compile(r"bot|crawl|spider|slurp|preview|fetch|monitor|curl|wget|python|lighthouse", re.IGNORECASE)


def is_by_a_person(browser: str, purpose: str) -> bool:
    """As far as headers tell: no program that says what it is, and no page that is only loaded ahead."""
    return bool(browser) and _MACHINE.search(browser) is None and "prefetch" not in purpose.lower()


def count(listing: Listing) -> None:
    try:
        client().hincrby(WAITING, _today(listing.full_name), 1)
    except AWAY as error:
        log.warning("a view is not counted", error=repr(error)[:200])


async def count_kept(listing: str, headers: Mapping[bytes, bytes]) -> None:
    """A view of a page that was kept; `listing` is its full name."""
    if is_by_a_person(headers.get(b"user-agent", b"").decode("latin-1"), headers.get(b"sec-purpose", b"").decode("latin-1")):
        try:
            await async_client().hincrby(WAITING, _today(listing), 1)
        except AWAY as error:
            log.warning("a view is not counted", error=repr(error)[:200])


def _today(full_name: str) -> str:
    return f"{full_name} {timezone.localdate().isoformat()}"


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


def _named(name: str) -> tuple[str, date]:
    full_name, day = name.split()
    return full_name, date.fromisoformat(day)


def _add(views: dict[tuple[str, date], int]) -> None:
    """Of listings that are still called so."""
    slugs = {name.split("/")[1] for name, _day in views}
    found = Listing.objects.filter(slug__in=slugs).values_list("pk", "publisher__slug", "slug")
    there = {f"{publisher}/{slug}": pk for pk, publisher, slug in found}
    of_there = sorted(((there[name], day), number) for (name, day), number in views.items() if name in there)
    ListingViews.objects.bulk_create((ListingViews(listing_id=pk, day=day) for (pk, day), _number in of_there), ignore_conflicts=True)
    for (pk, day), number in of_there:
        ListingViews.objects.filter(listing=pk, day=day).update(number=F("number") + number)
