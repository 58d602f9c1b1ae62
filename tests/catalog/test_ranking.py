"""The formula of ranks, and uses that cool without being touched."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest
import time_machine
from django.utils import timezone

from store.catalog import search
from store.catalog.models import Listing, Measurement, SearchEntry, Version
from store.catalog.search import documents, ranking
from store.catalog.search.ranking import Measured
from store.ratings.models import RatingSummary
from tests import making

DAY_S = 86_400


def measured(value: float, base: float | None, *, low: float | None = None, high: float | None = None, **more: object) -> Measured:
    fields = {"name": "answer.f1", "lower_is_better": False, "difference_low": low, "difference_high": high}
    return Measured(value=value, base_value=base, **fields | more)


def test_a_listing_nobody_knows_stands_where_the_priors_put_it() -> None:
    rank = ranking.rank_of(rating=0, quality=None, uses=0, age_s=0)

    assert rank == pytest.approx(0.30 * 2.5 / 4 + 0.25 * 0.4 + 0.15)


def test_the_best_there_can_be_has_rank_one_and_age_takes_from_it() -> None:
    best = {"rating": 5.0, "quality": 1.0, "uses": 10_000}

    assert ranking.rank_of(**best, age_s=0) == pytest.approx(1.0)
    assert ranking.rank_of(**best, age_s=90 * DAY_S) == pytest.approx(1.0 - 0.075)
    assert ranking.rank_of(**best | {"uses": 10**12}, age_s=-5) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("measurements", "quality"),
    [
        ([], None),
        ([measured(50, None)], None),
        ([measured(50, 40, name="own-1a2b3c4d.f1")], None),
        ([measured(50, 40, name="speed.tokens_per_s")], None),
        ([measured(44, 40, low=-1, high=9)], 0.5),
        ([measured(44, 40, low=1, high=7)], 0.5 + 0.5 * math.tanh(0.4)),
        ([measured(44, 40, low=1, high=7, lower_is_better=True)], 0.5 - 0.5 * math.tanh(0.4)),
        ([measured(44, 40, low=1, high=7), measured(36, 40, low=-7, high=-1)], 0.5),
        ([measured(1, 0)], 1.0),
    ],
)
def test_quality_is_what_is_surely_better_than_the_base(measurements: list[Measured], quality: float | None) -> None:
    assert ranking.quality_of(measurements) == (quality if quality is None else pytest.approx(quality, abs=1e-3))


def test_words_in_a_name_weigh_more_than_the_best_rank() -> None:
    assert ranking.score_of(ranking.IN_NAME, 0.2) > ranking.score_of(ranking.ANYWHERE, 1.0)


@pytest.mark.django_db
def test_uses_add_up_and_halve_every_week() -> None:
    listing = making.make_base().listing
    begun = timezone.now()

    with time_machine.travel(begun, tick=False):
        search.used(listing.pk, 3)
        search.used(listing.pk)
        heat = SearchEntry.objects.get(listing=listing).heat
        assert ranking.uses_of(heat, begun.timestamp()) == pytest.approx(4, rel=1e-6)
    with time_machine.travel(begun + timedelta(days=7), tick=False):
        search.used(listing.pk, 10)
        heat = SearchEntry.objects.get(listing=listing).heat

    assert ranking.uses_of(heat, begun.timestamp() + 7 * DAY_S) == pytest.approx(12, rel=1e-6)
    assert Listing.objects.get(pk=listing.pk).request_count == 14


@pytest.mark.django_db
def test_a_use_after_many_years_is_no_error_in_any_database() -> None:
    listing = making.make_base().listing
    with time_machine.travel(timezone.now() + timedelta(days=365 * 80), tick=False):
        search.used(listing.pk)
        search.used(listing.pk)
        now_s = timezone.now().timestamp()

    assert ranking.uses_of(SearchEntry.objects.get(listing=listing).heat, now_s) == pytest.approx(2, rel=1e-6)
    assert ranking.uses_of(0.0, now_s) == 0.0


@pytest.mark.django_db
def test_the_round_brings_ratings_and_measurements_into_rank_and_filters() -> None:
    version = making.make_base()
    before = SearchEntry.objects.get(listing=version.listing)
    RatingSummary.objects.create(listing=version.listing, count=9, total=43, bayesian=4.3)
    fields = {"value": 60, "base_value": 40, "difference_low": 10, "difference_high": 30}
    Measurement.objects.create(version=version, name="answer.f1", **fields)

    assert documents.rerank() == 0

    after = SearchEntry.objects.get(listing=version.listing)
    assert after.rank > before.rank
    assert after.rating == 4.3
    for fact in ("stars/4", "stars/3", "better", "measured"):
        assert [row.pk for row in search.find(facts=[fact]).page().listings] == [version.listing_id], fact


@pytest.mark.django_db
def test_the_round_goes_on_where_it_stopped_and_leaves_heat_alone() -> None:
    pks = sorted(making.make_base().listing_id for _ in range(5))
    SearchEntry.objects.update(heat=2_000.0, rank=0.0)

    places = [documents.rerank(after=0, limit=2)]
    while places[-1]:
        places.append(documents.rerank(after=places[-1], limit=2))

    assert places == [pks[1], pks[3], 0]
    assert not SearchEntry.objects.filter(rank=0.0).exists()
    assert set(SearchEntry.objects.values_list("heat", flat=True)) == {2_000.0}


@pytest.mark.django_db
def test_a_round_costs_as_many_queries_for_many_as_for_one(django_assert_num_queries: object) -> None:
    versions: list[Version] = [making.make_base()]
    for more in (0, 6):
        versions += [making.make_base() for _ in range(more)]
        with django_assert_num_queries(9):  # type: ignore[operator]
            documents.rerank()
