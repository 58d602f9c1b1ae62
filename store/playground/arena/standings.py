"""The arena's ratings: computed by a job from all votes that count, and read as a board.

A version is rated, not a listing, since a version never changes. Only votes between two that are available now count, so what
is suspended or withdrawn is out with all its votes, and in again when it comes back. "Both are bad" is a tie, as Chatbot
Arena counts it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.db.models import Count, F, QuerySet

from store.catalog.models import Listing, UseCase, Version
from store.playground.models import Battle, Standing, Tally

FEWEST_VOTES = 30  # of a version that has a place: with fewer an interval is wider than most differences
SHOWN = 100
DRAWN_BEYOND = 25.0  # points at either end of the scale

Votes = list[tuple[int, int, str, int]]  # (version A, version B, vote, how many)


@dataclass(frozen=True)
class Place:
    """A version on the board. `first` and `last`: between which places it stands; 0 where it has too few votes for one.

    `low_x`, `x` and `high_x`: where to draw the interval and the rating, from 0 to 100.
    """

    standing: Standing
    listing: Listing
    first: int = 0
    last: int = 0
    low_x: float = 0.0
    x: float = 0.0
    high_x: float = 0.0


@dataclass(frozen=True)
class Board:
    tally: Tally | None  # None: nothing was computed yet
    places: Sequence[Place]
    unplaced: Sequence[Place]  # with too few votes, most first


# ---------------------------------------------------------------- computing


def compute() -> Tally:
    """Rates every version that votes were given on, over all and for each use case, and puts that in the place of the last time."""
    doubted_count = Battle.objects.exclude(vote="").exclude(doubt="").count()
    by_use_case: dict[int | None, Votes] = {None: []}
    for use_case, a, b, vote, number in _counted().values_list("use_case", "version_a", "version_b", "vote").annotate(number=Count("pk")):
        by_use_case[None].append((a, b, vote, number))
        if use_case is not None:
            by_use_case.setdefault(use_case, []).append((a, b, vote, number))
    rows = [{"use_case_id": use_case, **row} for use_case, votes in by_use_case.items() for row in rated(votes)]
    with transaction.atomic():
        tally = Tally.objects.create(vote_count=sum(number for *_, number in by_use_case[None]), doubted_count=doubted_count)
        Standing.objects.bulk_create([Standing(tally=tally, **row) for row in rows])
        Tally.objects.filter(pk__lt=tally.pk).delete()
    return tally


def _counted() -> QuerySet[Battle]:
    available = Version.objects.available()
    return Battle.objects.exclude(vote="").filter(doubt="", version_a__in=available, version_b__in=available).order_by()


def rated(votes: Votes) -> list[dict[str, Any]]:
    """The fields of a standing for each version that was voted on."""
    if not votes:
        return []
    import numpy as np  # here, because only the job needs them: they are not to be loaded by every web process

    from store.playground.arena import bradley_terry

    versions = sorted({version for a, b, *_ in votes for version in (a, b)})
    at = {version: index for index, version in enumerate(versions)}
    wins, ties = np.zeros((len(versions), len(versions))), np.zeros((len(versions), len(versions)))
    for a, b, vote, number in votes:
        i, j = at[a], at[b]
        if vote in (Battle.Vote.A, Battle.Vote.B):
            wins[(i, j) if vote == Battle.Vote.A else (j, i)] += number
        else:
            ties[i, j] += number
            ties[j, i] += number
    found = bradley_terry.fit(wins + ties / 2)
    won, tied = wins.sum(axis=1), ties.sum(axis=1)
    met = won + wins.sum(axis=0) + tied
    return [
        {
            "version_id": version,
            "rating": float(found.ratings[index]),
            "margin": float(found.margins[index]),
            "votes": int(met[index]),
            "wins": int(won[index]),
            "ties": int(tied[index]),
        }
        for version, index in at.items()
    ]


# ---------------------------------------------------------------- reading


def vote_counts(versions: Sequence[int | None]) -> dict[int | None, int]:
    """How many votes each had at the last computation."""
    newest = Tally.objects.order_by("-pk").values("pk")[:1]
    counted = Standing.objects.filter(tally__in=newest, use_case=None, version__in=[version for version in versions if version])
    return dict(counted.values_list("version", "votes"))


def board(use_case: UseCase | None = None) -> Board:
    """Current versions of listed GPTs, in a constant number of queries."""
    tally = Tally.objects.first()
    if tally is None:
        return Board(None, [], [])
    current = Standing.objects.filter(tally=tally, use_case=use_case, version__listing__current_version=F("version"))
    listed = current.filter(version__listing__in=Listing.objects.listed()).order_by("-rating", "pk")
    ranked, few = list(listed.filter(votes__gte=FEWEST_VOTES)[:SHOWN]), listed.filter(votes__lt=FEWEST_VOTES)
    unplaced = list(few.order_by("-votes", "pk")[:SHOWN])
    ids = [row.version_id for row in (*ranked, *unplaced)]
    listings = {listing.current_version_id: listing for listing in Listing.objects.filter(current_version__in=ids).for_cards()}
    low, high = min((row.low for row in ranked), default=0.0), max((row.high for row in ranked), default=0.0)
    return Board(
        tally,
        [_place(row, ranked, listings[row.version_id], low - DRAWN_BEYOND, high + DRAWN_BEYOND) for row in ranked],
        [Place(row, listings[row.version_id]) for row in unplaced],
    )


def _place(row: Standing, rows: Sequence[Standing], listing: Listing, low: float, high: float) -> Place:
    better = sum(other.low > row.high for other in rows)
    worse = sum(other.high < row.low for other in rows)
    x = [round(100 * (value - low) / (high - low), 1) for value in (row.low, row.rating, row.high)]
    return Place(row, listing, 1 + better, len(rows) - worse, *x)
