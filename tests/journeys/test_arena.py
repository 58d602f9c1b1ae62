"""Two real answers without names, side by side; the vote names them."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from store.accounts.models import User
from store.catalog.models import Listing
from store.playground.models import Battle
from tests.journeys.conftest import sign_in
from tests.stack import Stack

pytestmark = [pytest.mark.browser, pytest.mark.real_model]
ANSWER_WITHIN_MS = 90_000


def test_both_answers_are_streamed_without_names_until_the_vote(site: Page, stack: Stack, somebody: User) -> None:
    sign_in(site, stack, somebody)
    site.goto(f"{stack.url}/en/chat/arena/")
    site.locator("#arena-text").fill("Name one animal.")
    site.keyboard.press("Enter")

    site.wait_for_url(re.compile(r"/en/chat/arena/btl_"))
    choice = site.get_by_role("button", name="B is better")
    expect(choice).to_be_disabled()
    expect(choice).to_be_enabled(timeout=ANSWER_WITHIN_MS)
    expect(site.get_by_role("region", name="Answer A").locator("[data-answer]")).not_to_be_empty()
    battle = Battle.objects.get(user=somebody)
    listings = [Listing.objects.get(versions=version) for version in (battle.version_a, battle.version_b)]
    said = site.locator("main").inner_text()
    assert not [listing.full_name for listing in listings if listing.full_name in said]
    expect(site.locator("main a[href*='/gpts/']")).to_have_count(0)
    choice.click()

    expect(site.get_by_role("heading", level=1)).to_have_text("Who they are")
    for listing in listings:
        expect(site.get_by_role("heading", level=2).get_by_role("link", name=listing.text("en").name, exact=True)).to_be_visible()
    expect(site.get_by_role("region", name="Answer B")).to_contain_text("your choice")
    battle.refresh_from_db()
    assert battle.winner_id == battle.version_b_id
