"""Places by what was measured: ranges where intervals meet, and nobody without enough data."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from store.catalog import listings
from store.catalog.models import Measurement, UseCase, Version
from store.jobs import suites
from store.pages import leaderboards
from tests import making
from tests.pages.test_measured import measure

pytestmark = pytest.mark.django_db


@pytest.fixture
def base() -> Version:
    return making.make_base(slug="small-base")


def contender(base: Version, slug: str, value: float, *, margin: float = 1.0) -> Measurement:
    version = making.make_prompt(base, making.make_listing(slug=slug))
    return measure(version, "answer.f1", value, low=value - margin, high=value + margin, unit="%", base_value=value - 5)


def places(use_case: str = "answer") -> list[tuple[str, int, int]]:
    return [(place.listing.slug, place.first, place.last) for place in leaderboards.board(use_case).places]


def test_a_place_is_a_range_where_intervals_meet(base: Version) -> None:
    for slug, value in (("far-behind", 20.0), ("second", 49.5), ("third", 48.2), ("first", 60.0)):
        contender(base, slug, value)

    assert places() == [("first", 1, 1), ("second", 2, 3), ("third", 2, 3), ("far-behind", 4, 4)]


def test_only_current_versions_of_listed_gpts_with_enough_data_have_a_place(base: Version) -> None:
    contender(base, "fit", 50.0)
    few = contender(base, "few-items", 90.0)
    few.method["items"] = leaderboards.MIN_ITEMS - 1
    few.save()
    Measurement.objects.filter(pk=contender(base, "no-interval", 90.0).pk).update(low=None)
    Measurement.objects.filter(pk=contender(base, "by-hand", 90.0).pk).update(method={})
    old = contender(base, "old-version", 90.0).version
    making.make_prompt(base, old.listing, number="2.0.0")
    listings.suspend(contender(base, "suspended", 90.0).version.listing)
    hidden = making.release(making.draft_prompt(base, making.make_listing(slug="hidden")), "unlisted")
    measure(hidden, "answer.f1", 90.0, low=89, high=91)

    assert [slug for slug, _first, _last in places()] == ["fit"]


def test_two_editions_of_a_suite_are_never_mixed(base: Version) -> None:
    for slug, value in (("new-1", 40.0), ("new-2", 30.0)):
        contender(base, slug, value)
    old = contender(base, "old-edition", 99.0)
    old.method["suite_sha256"] = "6" * 64
    old.save()

    found = leaderboards.board("answer")

    assert [place.listing.slug for place in found.places] == ["new-1", "new-2"]
    assert found.suite_sha256 == "5" * 64


def test_every_board_ranks_by_a_number_of_which_more_is_better() -> None:
    for use_case in UseCase.objects.all():
        name = suites.headline_of_use_case(use_case.slug)
        assert not name or name in suites.PLACE
    assert {suites.headline_of_use_case(slug) for slug in suites.SUITE_OF_USE_CASE} == {
        *("summarise.rouge_l", "translate.chrf", "answer.f1", "chat.f1", "code.acc_norm", "json.json_valid")
    }
    assert suites.headline_of_use_case("rewrite") == ""


def test_the_page_shows_bars_on_one_scale_and_leads_to_the_method(client: Client, base: Version) -> None:
    contender(base, "first", 60.0)
    contender(base, "second", 30.0)

    page = client.get("/en/leaderboards/?use_case=answer").text

    assert 'width="60.0%" y="3" height="7"' in page
    assert 'width="30.0%" y="3" height="7"' in page
    assert "<b>60.0%</b> ± 1.0" in page
    assert "5" * 64 in page
    assert '<span class="delta up">+5.0</span>' in page
    assert "回答问题：F1" in client.get("/zh-hans/leaderboards/?use_case=answer").text


@pytest.mark.parametrize("asked", ["rewrite", "nothing", "%00x", "%E2%80%AE", "x" * 500])
def test_a_board_that_is_not_there_is_said_so(client: Client, asked: str) -> None:
    answer = client.get(f"/en/leaderboards/?use_case={asked}")

    assert answer.status_code == 200
    assert "There is no leaderboard for this use case." in answer.text
    assert "Nobody has been measured here yet" in answer.text


def test_a_long_board_costs_as_many_queries_as_a_short_one(client: Client, base: Version) -> None:
    counts = []
    for more in (2, 10):
        for at in range(more):
            contender(making.make_adapter(base), f"gpt-{more}-{at}", 20.0 + at)
        with CaptureQueriesContext(connection) as queries:
            client.get("/en/leaderboards/?use_case=answer")
        counts.append(len(queries))

    assert counts[0] == counts[1] <= 10
