"""Follow and collect a GPT, invite and join, hand a publisher over: by keyboard alone, in both languages, each page judged by axe."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page

from store.accounts.models import Invitation, Membership, Publisher, User
from store.catalog.models import Collection, Follow, Listing
from tests.journeys.conftest import real_password, sign_in
from tests.making import confirm_address, make_publisher, make_user
from tests.stack import Stack, wait_until

pytestmark = [pytest.mark.browser]
TABS_AT_MOST = 120
FOR_AXE = {"preload": False, "reporter": "no-passes"}


@pytest.mark.parametrize("language", ["en", "zh-hans"])
def test_a_gpt_is_followed_and_put_into_a_new_collection(page: Page, stack: Stack, somebody: User, language: str) -> None:
    listing = Listing.objects.listed().order_by("pk").first()
    sign_in(page, stack, somebody)
    page_of_listing = f"{stack.url}/{language}/gpts/{listing.full_name}/"
    page.goto(page_of_listing)
    judge(page)

    press(page, page.locator(f"form[action$='{listing.slug}/follow/'] button"))
    wait_until(lambda: Follow.objects.filter(user=somebody, listing=listing).exists(), what="the follow")
    page.wait_for_load_state()
    press(page, page.locator("details.collect > summary"))
    reach(page, page.locator("#new-collection"))
    page.keyboard.type("要试的")
    page.keyboard.press("Enter")

    wait_until(lambda: Collection.objects.filter(user=somebody, name="要试的", items__listing=listing).exists(), what="the collection")
    assert not Collection.objects.get(user=somebody).is_public


@pytest.mark.parametrize("language", ["en", "zh-hans"])
def test_an_invited_person_joins_and_is_handed_the_publisher(
    page: Page, stack: Stack, browser: Browser, somebody: User, language: str
) -> None:
    publisher, invited = make_publisher(somebody), real_password(make_user())
    confirm_address(somebody)
    confirm_address(invited)
    theirs = browser.new_page()
    sign_in(page, stack, somebody)
    sign_in(theirs, stack, invited)

    invite(page, stack, publisher, invited, language, role="member")
    answer(theirs, stack, language)
    wait_until(lambda: publisher.role_of(invited) == Membership.Role.MEMBER, what="the membership")

    invite(page, stack, publisher, invited, language, role="ownership")
    answer(theirs, stack, language)
    wait_until(lambda: publisher.role_of(invited) == Membership.Role.OWNER, what="the ownership")
    assert publisher.role_of(somebody) == Membership.Role.MAINTAINER
    theirs.close()


def invite(page: Page, stack: Stack, publisher: Publisher, person: User, language: str, *, role: str) -> None:
    page.goto(f"{stack.url}/{language}/account/publishers/{publisher.slug}/members/")
    judge(page)
    form = page.locator("form[action$='/invitations/']")
    reach(page, form.locator("[name=email]"))
    page.keyboard.type(person.email)
    choice = form.locator("[name=role]")
    reach(page, choice)
    while choice.input_value() != role:
        page.keyboard.press("ArrowUp" if role == "member" and choice.input_value() == "ownership" else "ArrowDown")
    press(page, form.locator("button.primary"))
    pending = Invitation.objects.filter(publisher=publisher, email=person.email, state=Invitation.State.PENDING)
    wait_until(pending.exists, what="the invitation")


def answer(page: Page, stack: Stack, language: str) -> None:
    """Accepts the invitation that waits for who is signed in."""
    page.goto(f"{stack.url}/{language}/account/publishers/")
    press(page, page.locator("main a[href*='/account/invitations/']").first)
    page.wait_for_url("**/account/invitations/**")
    judge(page)
    press(page, page.locator("button[name=answer][value=accept]"))
    page.wait_for_load_state()


def press(page: Page, target: Locator) -> None:
    reach(page, target)
    page.keyboard.press("Enter")


def reach(page: Page, target: Locator) -> None:
    """Goes on by Tab until the target has the focus, as somebody without a mouse does."""
    for _ in range(TABS_AT_MOST):
        if target.evaluate("element => element === document.activeElement"):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"{target} cannot be reached by Tab")


def judge(page: Page) -> None:
    """Fails for what axe finds wrong."""
    violations = Axe().run(page, options=FOR_AXE).response["violations"]
    assert [f"{violation['id']}: {violation['nodes'][0]['html'][:160]}" for violation in violations] == []
