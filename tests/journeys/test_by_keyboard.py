"""By keyboard alone, in both languages: find, compare, try, rate, follow and collect a GPT; hand over one, or a publisher with all.

Axe judges here what no other journey shows to it.
"""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Browser, Page, expect

from store.accounts.models import Invitation, Membership, Publisher, User
from store.catalog.models import Collection, Follow, Listing, Transfer, Version
from store.generation.models import Request
from tests import making
from tests.journeys.conftest import PASSWORD, Judge, choose, press, reach, real_password, sign_in, write
from tests.making import confirm_address, make_publisher, make_user
from tests.stack import Stack, wait_until

pytestmark = [pytest.mark.browser]
LANGUAGES = ["en", "zh-hans"]
ANSWER_WITHIN_MS = 90_000
NAMES = {"en": "Quokka greetings", "zh-hans": "短尾矮袋鼠的问候"}
SAID = {"en": "Does what it says.", "zh-hans": "说到做到。"}


@pytest.fixture
def greeter(stack: Stack) -> Listing:
    """A GPT of few words, whose names are no other's."""
    base = Version.objects.available().filter(kind="weights").order_by("pk").first()
    texts = {language: {"name": name, "summary": f"{name}.", "card": ""} for language, name in NAMES.items()}
    few = {"starters": ["Say hello."], "parameters": {"max_tokens": 8}}
    return making.make_prompt(base, making.make_listing(texts=texts), **few).listing


@pytest.mark.real_model
@pytest.mark.parametrize("language", [pytest.param("en", marks=pytest.mark.postgresql), "zh-hans"])
def test_a_gpt_is_found_compared_with_its_base_tried_and_rated(
    site: Page, stack: Stack, judge: Judge, somebody: User, greeter: Listing, language: str
) -> None:
    page_of_listing = f"{stack.url}/{language}/gpts/{greeter.full_name}/"
    site.goto(f"{stack.url}/{language}/")
    write(site, site.locator("main form[role=search] input[type=search]"), NAMES[language])
    site.keyboard.press("Enter")
    press(site, site.locator(f".results .name a[href$='/gpts/{greeter.full_name}/']"))
    site.wait_for_url(page_of_listing)

    press(site, site.locator("header.title a[href*='/compare/']"))
    reach(site, site.locator("#compare-text"))
    site.keyboard.press("Enter")
    sides = site.locator("[data-side]")
    expect(sides).to_have_count(2)
    for number in range(2):
        expect(sides.nth(number).locator("[data-answer]")).not_to_have_attribute("aria-busy", "true", timeout=ANSWER_WITHIN_MS)
        expect(sides.nth(number).locator(".numbers")).to_contain_text("token", timeout=ANSWER_WITHIN_MS)
        expect(sides.nth(number).locator("[data-answer] .note")).to_have_count(0)
    expect(site.locator("[data-send]")).to_be_visible(timeout=ANSWER_WITHIN_MS)
    judge(site)

    press(site, sides.first.locator("h2 a"))
    site.wait_for_url(page_of_listing)
    _sign_in_by_keyboard(site, judge, somebody)
    site.wait_for_url(page_of_listing)
    press(site, site.locator("[data-try] [data-send]"))
    expect(site.locator("[data-try] [data-keep]")).to_be_visible(timeout=ANSWER_WITHIN_MS)
    expect(site.locator("[data-try] [data-send]")).to_be_focused()  # as before stop took its place for a while
    wait_until(lambda: Request.objects.filter(user=somebody, state="finished").exists(), what="the settled answer")

    site.reload()
    press(site, site.locator("#ratings header a.button"))
    reach(site, site.locator("[name=stars][value='5']"))
    site.keyboard.press("ArrowDown")
    write(site, site.locator("[name=text]"), SAID[language])
    judge(site)
    press(site, site.locator("main form button.primary"))

    site.wait_for_url(re.compile(re.escape(page_of_listing)))
    expect(site.locator("#ratings")).to_contain_text(SAID[language])
    assert greeter.ratings.get().stars == 4


def _sign_in_by_keyboard(page: Page, judge: Judge, user: User) -> None:
    press(page, page.locator("header a.sign-in"))
    page.wait_for_url("**/account/login/**")
    judge(page)
    write(page, page.locator("input[name=login]"), user.username)
    write(page, page.locator("input[name=password]"), PASSWORD)
    page.keyboard.press("Enter")


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_gpt_is_followed_and_put_into_a_new_collection(site: Page, stack: Stack, somebody: User, language: str) -> None:
    listing = Listing.objects.listed().order_by("pk").first()
    sign_in(site, stack, somebody)
    site.goto(f"{stack.url}/{language}/gpts/{listing.full_name}/")

    press(site, site.locator(f"form[action$='{listing.slug}/follow/'] button"))
    wait_until(lambda: Follow.objects.filter(user=somebody, listing=listing).exists(), what="the follow")
    site.wait_for_load_state()
    press(site, site.locator("details.collect > summary"))
    reach(site, site.locator("#new-collection"))
    site.keyboard.type("要试的")
    site.keyboard.press("Enter")

    wait_until(lambda: Collection.objects.filter(user=somebody, name="要试的", items__listing=listing).exists(), what="the collection")
    assert not Collection.objects.get(user=somebody).is_public


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_invited_person_joins_and_is_handed_the_publisher(
    site: Page, stack: Stack, browser: Browser, judge: Judge, somebody: User, language: str
) -> None:
    publisher, invited = make_publisher(_confirmed(somebody)), _confirmed(real_password(make_user()))
    theirs = browser.new_page()
    sign_in(site, stack, somebody)
    sign_in(theirs, stack, invited)
    members = f"{stack.url}/{language}/account/publishers/{publisher.slug}/members/"

    site.goto(members)
    invite(site, publisher, invited, role="member")
    answer(theirs, stack, language)
    wait_until(lambda: publisher.role_of(invited) == Membership.Role.MEMBER, what="the membership")

    site.goto(members)
    invite(site, publisher, invited, role="ownership")
    answer(theirs, stack, language, judge=judge)
    wait_until(lambda: publisher.role_of(invited) == Membership.Role.OWNER, what="the ownership")
    assert publisher.role_of(somebody) == Membership.Role.MAINTAINER
    theirs.close()


def _confirmed(user: User) -> User:
    confirm_address(user)
    return user


def invite(page: Page, publisher: Publisher, person: User, *, role: str) -> None:
    form = page.locator("form[action$='/invitations/']")
    write(page, form.locator("[name=email]"), person.email)
    choose(page, form.locator("[name=role]"), role)
    press(page, form.locator("button.primary"))
    pending = Invitation.objects.filter(publisher=publisher, email=person.email, state=Invitation.State.PENDING)
    wait_until(pending.exists, what="the invitation")


def answer(page: Page, stack: Stack, language: str, judge: Judge | None = None) -> None:
    """Accepts the invitation that waits for who is signed in."""
    page.goto(f"{stack.url}/{language}/account/publishers/")
    press(page, page.locator("main a[href*='/account/invitations/']").first)
    page.wait_for_url("**/account/invitations/**")
    if judge:
        judge(page)
    press(page, page.locator("button[name=answer][value=accept]"))
    page.wait_for_load_state()


@pytest.mark.parametrize(("language", "theirs_language", "answered"), [("en", "zh-hans", "accepted"), ("zh-hans", "en", "已接受")])
def test_a_gpt_is_offered_to_another_publisher_whose_owner_takes_it_over(
    site: Page, stack: Stack, browser: Browser, somebody: User, language: str, theirs_language: str, answered: str
) -> None:
    listing, taker = making.make_listing(make_publisher(somebody)), _confirmed(real_password(make_user()))
    other = make_publisher(taker)
    theirs = browser.new_page()
    sign_in(site, stack, somebody)
    sign_in(theirs, stack, taker)

    site.goto(f"{stack.url}/{language}/studio/gpts/{listing.full_name}/")
    press(site, site.locator("main details.menu > summary"))
    press(site, site.locator("main details.menu a[href$='/transfer/']"))
    write(site, site.locator("main [name=to]"), other.slug)
    site.keyboard.press("Enter")
    expect(site.locator("main button[name=revoke]")).to_be_visible()
    offer = Transfer.objects.get(listing=listing)

    theirs.goto(f"{stack.url}/{theirs_language}/inbox/")
    press(theirs, theirs.locator("main form[action$='/open/'] button").first)
    theirs.wait_for_url(f"**/studio/transfers/{offer.public_id}/")
    press(theirs, theirs.locator("main button[name=answer][value=accept]"))
    theirs.wait_for_url(f"**/studio/gpts/{other.slug}/{listing.slug}/")

    listing.refresh_from_db()
    assert listing.publisher == other
    site.goto(f"{stack.url}/{language}/inbox/")
    expect(site.locator("main")).to_contain_text(answered)
    theirs.close()
