"""The search field offers what may be meant, to the keyboard alone; without a script it is a plain form."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Browser, Page, expect

from store.catalog.models import Listing, Version
from tests import making
from tests.stack import Stack

pytestmark = [pytest.mark.browser]


@pytest.fixture
def shown(stack: Stack) -> Listing:
    """A GPT whose names no other begins like."""
    base = Version.objects.available().filter(kind="weights").order_by("pk").first()
    assert base is not None
    found = Listing.objects.filter(live_revision__texts__name="Zyzzyva tales").first()
    texts = {language: {"name": name, "summary": name, "card": ""} for language, name in (("en", "Zyzzyva tales"), ("zh-hans", "蟋蟀故事"))}
    return found or making.make_prompt(base, making.make_listing(texts=texts)).listing


@pytest.mark.parametrize(("language", "begun", "name"), [("en", "zy", "Zyzzyva tales"), ("zh-hans", "蟋蟀", "蟋蟀故事")])
def test_two_characters_an_arrow_and_enter_lead_to_a_listing(
    site: Page, stack: Stack, shown: Listing, language: str, begun: str, name: str
) -> None:
    site.goto(f"{stack.url}/{language}/explore/")
    field = site.get_by_role("combobox").and_(site.locator("input[type=search]:visible")).first
    expect(field).to_have_attribute("aria-expanded", "false")

    field.focus()
    site.keyboard.type(begun)
    offered = site.get_by_role("option").filter(has_text=name)
    expect(offered).to_be_visible()
    expect(field).to_have_attribute("aria-expanded", "true")
    site.keyboard.press("ArrowDown")
    expect(offered).to_have_attribute("aria-selected", "true")
    expect(field).to_have_attribute("aria-activedescendant", offered.get_attribute("id") or "")
    expect(field).to_be_focused()
    site.keyboard.press("Enter")

    site.wait_for_url(re.compile(f"/{language}/gpts/{shown.full_name}/"))
    expect(site.get_by_role("heading", level=1)).to_have_text(name)


@pytest.mark.parametrize(("language", "begun"), [("en", "zy"), ("zh-hans", "蟋蟀")])
def test_escape_closes_the_list_and_enter_searches_for_what_was_typed(
    site: Page, stack: Stack, shown: Listing, language: str, begun: str
) -> None:
    site.goto(f"{stack.url}/{language}/explore/")
    field = site.locator(".results input[type=search]")
    field.focus()
    site.keyboard.type(begun)
    offered = site.locator("[role=option]:visible")
    expect(offered.first).to_be_visible()
    site.keyboard.press("ArrowDown")

    site.keyboard.press("Escape")

    expect(offered).to_have_count(0)
    expect(field).to_have_attribute("aria-expanded", "false")
    expect(field).not_to_have_attribute("aria-activedescendant", re.compile("."))
    expect(field).to_have_value(begun)
    site.keyboard.press("Enter")
    site.wait_for_url(re.compile(r"/explore/\?.*q="))
    expect(site.locator(f".results a[href='/{language}/gpts/{shown.full_name}/']").first).to_be_visible()


@pytest.mark.parametrize(("language", "begun"), [("en", "zy"), ("zh-hans", "蟋蟀")])
def test_without_javascript_the_field_is_a_form(browser: Browser, stack: Stack, shown: Listing, language: str, begun: str) -> None:
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(f"{stack.url}/{language}/")

    page.locator("main input[type=search]").fill(begun)
    page.keyboard.press("Enter")

    expect(page.locator(f".results a[href='/{language}/gpts/{shown.full_name}/']").first).to_be_visible()
    expect(page.get_by_role("combobox").and_(page.locator("input"))).to_have_count(0)
    page.context.close()
