"""Which two GPTs meet: listed ones that cost nobody anything, of different publishers, those with few votes first.

Only free ones, because nobody should pay for the answer of a GPT they did not choose. Never two of one publisher, who could
have one of theirs lose to another. The contenders are the best of the catalogue as explore ranks it, so that votes are not
spread over a million listings; they share a use case and, where there are enough, the language of who asks. Where fewer than
`settings.ARENA_LEAST_CONTENDERS` could meet, nobody does: who asks would know the two, which is what a blind vote is without.
"""

from __future__ import annotations

import random

from django.conf import settings

from store.accounts.models import User
from store.billing import prices
from store.catalog import naming, search
from store.catalog.models import Listing, UseCase, Version
from store.errors import NotFound
from store.playground.arena import signs, standings
from store.playground.errors import NoContenders

CONTENDERS = 100
_RANDOM = random.SystemRandom()


def choose(user: User, *, use_case: UseCase | None, language: str, rng: random.Random = _RANDOM) -> tuple[Version, Version]:
    """Two versions in random order, with their lineage loaded. Raises NoContenders."""
    listings = _contenders(user, use_case)
    if len(listings) < settings.ARENA_LEAST_CONTENDERS:
        raise NoContenders
    used_up = signs.used_up(user.pk)  # votes on these would not count
    speaking = {listing.pk for listing in listings if _speaks(listing, language)}
    if len(speaking) < settings.ARENA_LEAST_CONTENDERS:
        speaking = set()
    votes = standings.vote_counts([listing.current_version_id for listing in listings])
    turns = {listing.pk: _turn(votes.get(listing.current_version_id, 0), rng) for listing in listings}
    waiting: list[Version] = []

    def order(listing: Listing) -> tuple[bool, bool, float]:
        return listing.current_version_id in used_up, listing.pk not in speaking, turns[listing.pk]

    for listing in sorted(listings, key=order):
        if (version := _free(listing, user)) is None:
            continue
        if (other := next((other for other in waiting if _may_meet(other.listing, listing)), None)) is not None:
            sides = [other, version]
            rng.shuffle(sides)
            return sides[0], sides[1]
        version.listing = listing  # with its use cases
        waiting.append(version)
    raise NoContenders


def _contenders(user: User, use_case: UseCase | None) -> list[Listing]:
    """The best that this person may vote on."""
    free = Listing.objects.listed().filter(search_entry__is_listed=True, search_entry__facts__contains=f" {search.fact('free')} ")
    if use_case is not None:
        free = free.filter(use_cases=use_case)
    others = free.exclude(publisher__memberships__user=user)
    return list(others.order_by("-search_entry__rank", "pk").select_related("publisher").prefetch_related("use_cases")[:CONTENDERS])


def _turn(votes: int, rng: random.Random) -> float:
    """The smaller, the sooner: one with v votes comes first as if it had 1 / (1 + v) lots in the urn.

    Sorting by -log(u) / weight draws without replacement by weight (Efraimidis and Spirakis 2006).
    """
    return rng.expovariate(1.0) * (1 + votes)


def _speaks(listing: Listing, language: str) -> bool:
    return language in {code.partition("-")[0] for code in listing.languages}


def _may_meet(one: Listing, other: Listing) -> bool:
    tasks = {use_case.pk for use_case in one.use_cases.all()}
    return one.publisher_id != other.publisher_id and any(use_case.pk in tasks for use_case in other.use_cases.all())


def _free(listing: Listing, user: User) -> Version | None:
    """Its version, unless it was taken down or given a price since the catalogue was indexed."""
    assert listing.current_version_id is not None  # it is listed
    try:
        version = naming.resolve(listing.full_name, user)
    except NotFound:
        return None
    return version if prices.of_version(version).is_free else None
