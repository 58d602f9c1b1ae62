"""What a version was made from and what was made from it, as a drawing with links and as a list."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from store.catalog.models import Listing, Version
from store.pages import lineage
from tests import making

pytestmark = pytest.mark.django_db


@pytest.fixture
def base() -> Version:
    return making.make_base(slug="small-base")


def names(versions: list[Version]) -> list[str]:
    return [version.listing.slug for version in versions]


def test_a_version_stands_between_what_it_was_made_from_and_what_was_made_from_it(base: Version) -> None:
    trained = making.make_trained(base, making.make_listing(slug="trained", allow_finetune=True))
    adapter = making.make_adapter(trained, making.make_listing(slug="tuned"))
    prompts = [making.make_prompt(adapter, making.make_listing(slug=slug)) for slug in ("first", "second")]
    Listing.objects.filter(slug="second").update(request_count=9)

    of_trained, of_prompt, of_base = (lineage.of(version) for version in (trained, prompts[0], base))

    assert names(of_trained.ancestors) == ["small-base"]
    assert names(of_trained.children) == ["tuned"]
    assert names(of_trained.grandchildren[adapter.pk]) == ["second", "first"]
    assert [str(edge.label) for edge in of_prompt.edges] == ["Fine-tune, all weights", "Fine-tune, LoRA", "Instructions"]
    assert [(names([version]), str(made)) for version, made in of_prompt.steps] == [
        (["small-base"], "Fine-tune, all weights"),
        (["trained"], "Fine-tune, LoRA"),
        (["tuned"], "Instructions"),
    ]
    assert (names(of_base.children), names(of_base.grandchildren[trained.pk])) == (["trained"], ["tuned"])
    assert lineage.of(making.make_base()).is_alone


def test_nothing_overlaps_and_every_arrow_goes_right(base: Version) -> None:
    for _ in range(3):
        adapter = making.make_adapter(base)
        for _ in range(2):
            making.make_prompt(adapter)

    found = lineage.of(base)

    places = [(node.x, node.y) for node in found.nodes]
    assert len(places) == len(set(places)) == 9  # the base, its 3 children, and the 5 most used of theirs
    for column in {x for x, _y in places}:
        heights = sorted(y for x, y in places if x == column)
        assert all(after - before >= lineage.NODE_HEIGHT for before, after in pairwise(heights))
    assert all(edge.target.x - edge.source.x > lineage.NODE_WIDTH for edge in found.edges)
    assert found.width == max(x for x, _y in places) + lineage.NODE_WIDTH + lineage.MARGIN


def test_only_listed_gpts_and_their_current_versions_are_made_from_it(base: Version) -> None:
    listing = making.make_prompt(base, making.make_listing(slug="grown")).listing
    making.make_prompt(base, listing, number="1.1.0")
    making.release(making.draft_prompt(base, making.make_listing(slug="hidden")), visibility="unlisted")
    making.draft_prompt(base, making.make_listing(slug="draft"))

    assert [version.full_name for version in lineage.of(base).children] == [f"{listing.full_name}@1.1.0"]


def test_the_page_draws_links_that_are_named_and_lists_the_same(client: Client, base: Version) -> None:
    long_name = "一个很长的名字" * 6
    listing = making.make_listing(slug="made", texts={"en": {"name": long_name, "summary": ".", "card": ""}})
    made = making.make_prompt(base, listing)

    page = client.get(f"/en/gpts/{base.listing.full_name}/").text
    drawing = page[page.index('<svg class="lineage-graph"') : page.index('<ol class="lineage">')]

    assert f'<a class="node" href="/en/gpts/{made.listing.full_name}/"' in drawing
    assert f'aria-label="{long_name} 1.0.0, Prompt GPT, {made.listing.publisher.name}"' in drawing
    assert "一个很长的名字一个…" in drawing
    assert not re.search(r'(?:x|y|width|height)="[^"]*,', drawing)  # numbers of a drawing are written alike in every language
    assert page.count(f'href="/en/gpts/{made.listing.full_name}/"') >= 2
    assert f"?base={base.listing.publisher.slug}/small-base" in page.replace("%2F", "/")


def test_a_large_family_costs_as_many_queries_as_a_small_one(base: Version) -> None:
    counts: list[int] = []
    assert base.listing.text().name  # as its page has loaded it
    for more in (1, 6):
        for _ in range(more):
            making.make_prompt(making.make_adapter(base))
        with CaptureQueriesContext(connection) as queries:
            found = lineage.of(base)
            assert found.nodes
        counts.append(len(queries))

    assert counts[0] == counts[1] <= 9


@pytest.mark.parametrize(("text", "shown"), [("Short", "Short"), ("x" * 30, "x" * 16 + "…"), ("中" * 12, "中" * 9 + "…"), ("", "")])
def test_as_much_of_a_name_is_drawn_as_fits(text: str, shown: str) -> None:
    assert lineage.fitting(text, 140, 13.0) == shown
