"""Which other GPTs stand on a GPT's page, and of which it is said that they are the better value."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from store.catalog.models import Listing, Version
from store.pages import alternatives
from tests import making
from tests.pages.test_measured import measure

pytestmark = pytest.mark.django_db


@pytest.fixture
def base() -> Version:
    return making.make_base(slug="small-base", use_cases=["write"])


def summariser(base: Version, slug: str, value: float | None, price: int = 0, **fields: object) -> Listing:
    """Measured on summaries with an interval of one to each side; it asks the same for reading and writing."""
    asked = {"use_cases": ["summarise"], "input_price_micro": price, "output_price_micro": price}
    version = making.make_prompt(base, making.make_listing(slug=slug, **asked | fields))
    if value is not None:
        measure(version, "summarise.rouge_l", value, low=value - 1, high=value + 1)
    return version.listing


def found(listing: Listing) -> dict[str, tuple[str, str, str]]:
    shown = alternatives.of(listing, listing.current_version)
    return {row.listing.slug: (row.value, row.per_money, str(row.gain)) for row in shown.rows}


def test_better_value_is_not_measurably_worse_and_better_in_something(base: Version) -> None:
    this = summariser(base, "this", 30.0, price=200_000)
    summariser(base, "as-good-and-free", 29.0)
    summariser(base, "better-and-cheaper", 40.0, price=100_000)
    summariser(base, "better-and-as-dear", 40.0, price=200_000)
    summariser(base, "worse-and-free", 20.0)

    assert found(this) == {
        "as-good-and-free": ("29.0 ± 1.0", "", "not measurably worse, and cheaper"),
        "better-and-cheaper": ("40.0 ± 1.0", "200.0", "better and cheaper"),
        "better-and-as-dear": ("40.0 ± 1.0", "100.0", "better for the same price"),
        "worse-and-free": ("20.0 ± 1.0", "", ""),
    }
    assert next(iter(found(this))) == "as-good-and-free"
    assert alternatives.of(this, this.current_version).this.per_money == "75.0"


def test_what_is_dearer_or_as_good_for_the_same_price_is_no_better_value(base: Version) -> None:
    this = summariser(base, "this", 30.0, price=200_000)
    summariser(base, "dearer", 60.0, price=300_000)
    summariser(base, "the-same", 30.5, price=200_000)
    mixed = {"input_price_micro": 0, "output_price_micro": 900_000}
    summariser(base, "cheap-to-read-only", 60.0, **mixed)

    assert {gain for _value, _per_money, gain in found(this).values()} == {""}


def test_nothing_is_said_of_what_was_measured_on_other_items_or_for_other_tasks(base: Version) -> None:
    this = summariser(base, "this", 30.0, price=200_000)
    other_items = summariser(base, "other-items", 60.0)
    for row in other_items.current_version.measurements.all():  # type: ignore[union-attr]
        row.method["suite_sha256"] = "6" * 64
        row.save()
    summariser(base, "not-measured", None)
    for listing in (this, summariser(base, "other-task", None)):
        assert listing.current_version is not None
        measure(listing.current_version, "code.acc_norm", 50.0, low=49, high=51)

    assert found(this) == {"other-items": ("", "", ""), "not-measured": ("", "", ""), "other-task": ("", "", "")}
    assert alternatives.of(this, this.current_version).label == "Summarise: ROUGE-L"


def test_what_shares_no_use_case_or_is_not_listed_is_no_alternative(base: Version) -> None:
    this = summariser(base, "this", 30.0)
    summariser(base, "writer", 40.0, use_cases=["write"])
    hidden = making.draft_prompt(base, making.make_listing(slug="hidden", use_cases=["summarise"]))
    making.release(hidden, visibility="unlisted")

    assert found(this) == {}


def test_the_page_says_so_in_both_languages_and_leads_to_a_comparison(client: Client, base: Version) -> None:
    this = summariser(base, "this", 30.0, price=200_000)
    other = summariser(base, "other", 29.0)

    page, chinese = (client.get(f"/{language}/gpts/{this.full_name}/").text for language in ("en", "zh-hans"))

    assert "Similar, and better value" in page
    assert "not measurably worse, and cheaper" in page
    assert "性价比更高" in chinese
    assert "/en/leaderboards/?use_case=summarise" in page
    assert f"/en/compare/?gpt={this.full_name}&amp;gpt={other.full_name}" in page


def test_many_alternatives_cost_as_many_queries_as_a_few(client: Client, base: Version) -> None:
    this = summariser(base, "this", 30.0, price=200_000)
    counts = []
    for more in (6, 12):
        for at in range(more):
            summariser(base, f"other-{more}-{at}", 20.0 + at)
        with CaptureQueriesContext(connection) as queries:
            assert client.get(f"/en/gpts/{this.full_name}/").status_code == 200
        counts.append(len(queries))

    assert counts[0] == counts[1] <= 40
