"""A visitor finds a GPT, asks it, reads the streamed answer, signs up, and has the conversation still."""

from __future__ import annotations

import re
import time

import pytest
import redis
from django.conf import settings
from playwright.sync_api import Browser, Page, expect

from store.catalog.models import Listing
from store.playground.models import Conversation
from tests.journeys.test_signed_in_pages import VIEWS, judged, shown
from tests.stack import Stack

pytestmark = [pytest.mark.browser, pytest.mark.real_model]
ANSWER_WITHIN_MS = 90_000


def free_prompt_gpt() -> Listing:
    return Listing.objects.listed().filter(current_version__kind="prompt", input_price_micro=0, output_price_micro=0).order_by("pk").first()


@pytest.mark.postgresql
def test_from_the_home_page_to_a_kept_conversation(site: Page, stack: Stack) -> None:
    listing = free_prompt_gpt()
    name = listing.text("en").name
    site.goto(f"{stack.url}/en/")
    assert site.context.cookies() == []

    site.locator("input[name=q]:visible").first.fill(name)
    site.keyboard.press("Enter")
    site.locator("main").get_by_role("link", name=name, exact=True).first.click()
    expect(site.get_by_role("heading", level=1)).to_have_text(name)
    site.locator("[data-try] [data-send]").click()
    answer = site.locator("[data-try] [data-answer]")
    expect(answer).not_to_be_empty(timeout=ANSWER_WITHIN_MS)
    expect(site.locator("[data-try] [data-keep]")).to_be_visible(timeout=ANSWER_WITHIN_MS)
    said = answer.inner_text()
    site.locator("[data-try] [data-keep]").click()
    site.wait_for_url(re.compile(r"/en/chat/cnv_"))
    conversation = site.url
    site.goto(f"{stack.url}/en/account/signup/")
    username = _sign_up(site)
    site.goto(conversation)

    expect(site.locator("[data-thread]")).to_contain_text(said.splitlines()[0][:30])
    assert Conversation.objects.get(public_id=re.search(r"cnv_\w+", conversation).group()).user.username == username


def test_without_javascript_a_visitor_asks_on_a_listing_page(browser: Browser, stack: Stack) -> None:
    listing = free_prompt_gpt()
    page = browser.new_context(java_script_enabled=False).new_page()
    page.set_default_timeout(ANSWER_WITHIN_MS)
    page.goto(f"{stack.url}/en/gpts/{listing.full_name}/")
    assert page.context.cookies() == []

    page.locator("[data-try] textarea").fill("What is the capital of France?")
    page.locator("[data-try] [data-send]").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Ask {listing.text('en').name}")
    expect(page.locator("#say")).to_have_value("What is the capital of France?")
    page.get_by_role("button", name="Send").click()
    page.wait_for_url(re.compile(r"/en/chat/cnv_"))

    expect(page.locator("[data-thread] .answer-to .body")).not_to_be_empty()
    page.context.close()


def test_who_used_up_the_tries_signs_up_and_finds_the_text_again(site: Page, stack: Stack) -> None:
    listing = free_prompt_gpt()
    network = "ratelimit:tries:network:127.0.0.1"
    with redis.Redis(port=stack.valkey_port, username="store", password=settings.VALKEY_PASSWORDS["store"]) as valkey:
        valkey.set(network, time.time() + 86_400 * 2, ex=600)
        site.goto(f"{stack.url}/en/gpts/{listing.full_name}/?code=curl")
        site.locator("[data-try] textarea").fill("A long text that took an hour to write.")
        site.locator("[data-try] [data-send]").click()
        site.locator("[data-try] [data-trouble]").get_by_role("link", name="Sign up").click()
        _sign_up(site)
        valkey.delete(network)

    assert site.url == f"{stack.url}/en/gpts/{listing.full_name}/?code=curl"
    expect(site.locator("[data-try] textarea")).to_have_value("A long text that took an hour to write.")


def _sign_up(page: Page) -> str:
    """Fills in the form of the page that is open; the new username."""
    username = f"visitor-{time.time_ns()}"
    page.locator("input[name=email]").fill(f"{username}@example.org")
    page.locator("input[name=username]").fill(username)
    page.locator("input[name=password1]").fill("a long enough secret 7")
    page.locator("form:has(input[name=password1]) button.primary").click()
    page.wait_for_url(lambda url: "/signup/" not in url)
    return username


def test_the_keyboard_alone_is_enough_to_ask_and_stop(site: Page, stack: Stack) -> None:
    listing = Listing.objects.listed().filter(current_version__kind="weights").first()
    site.goto(f"{stack.url}/en/chat/new/?model={listing.full_name}")

    site.keyboard.type("Write a long story about the sea, with many chapters.")
    site.keyboard.press("Enter")
    expect(site.locator("[data-stopper]")).to_be_visible(timeout=ANSWER_WITHIN_MS)
    site.wait_for_url(re.compile(r"/en/chat/cnv_"))
    expect(site.locator("[data-thread]")).to_contain_text(re.compile(r"sea|story|once", re.I), timeout=ANSWER_WITHIN_MS)
    site.keyboard.press("Escape")

    expect(site.locator("[data-stopper]")).to_be_hidden(timeout=ANSWER_WITHIN_MS)


def test_what_a_visitor_writes_stays_text(site: Page, stack: Stack) -> None:
    listing = free_prompt_gpt()
    site.goto(f"{stack.url}/en/chat/new/?model={listing.full_name}")
    site.locator("#say").fill("<img src=x onerror=\"document.title='taken'\"> Say hello.")
    site.keyboard.press("Enter")

    expect(site.locator("[data-thread]")).to_contain_text("<img src=x onerror=", timeout=ANSWER_WITHIN_MS)
    assert site.title() != "taken"


@pytest.mark.parametrize("language", ["en", "zh-hans"])
def test_pages_for_visitors_are_whole_and_violate_no_accessibility_rule(page: Page, stack: Stack, language: str) -> None:
    """On a page of its own: axe itself sets styles that the content policy refuses."""
    listing = free_prompt_gpt()
    found: dict[str, list[str]] = {}

    for path in ("", "explore/", f"gpts/{listing.full_name}/", f"chat/new/?model={listing.full_name}", "account/signup/", "developers/"):
        page.goto(f"{stack.url}/{language}/{path}")
        wrong = shown(page, f"visitors-{language}", VIEWS[language]) + judged(page, *VIEWS[language][-1])
        if wrong:
            found[path] = wrong

    assert found == {}
