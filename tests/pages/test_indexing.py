"""What search engines and whoever shows a link are told of a page."""

from __future__ import annotations

import json
import re
from typing import Any
from xml.etree import ElementTree

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from store.catalog.models import Listing
from store.pages import crawlers
from store.ratings.models import RatingSummary
from tests import making

pytestmark = pytest.mark.django_db
SITEMAP = "{http://www.sitemaps.org/schemas/sitemap/0.9}"
NOINDEX = '<meta name="robots" content="noindex">'


def meta(page: str, name: str) -> str:
    found = re.search(rf'<meta (?:name|property)="{re.escape(name)}" content="([^"]*)">', page)
    return found[1] if found else ""


def blocks(page: str) -> list[dict[str, Any]]:
    return [json.loads(block) for block in re.findall(r'<script type="application/ld\+json">(.*?)</script>', page)]


@pytest.fixture
def listing() -> Listing:
    texts = {
        "en": {"name": 'The "A & B" <GPT>', "summary": "</script><script>alert(1)</script>", "card": ""},
        "zh-hans": {"name": "写信", "summary": "把话写成信。", "card": ""},
    }
    return making.make_prompt(listing=making.make_listing(making.make_publisher(slug="lab"), "letters", texts=texts)).listing


def test_a_page_names_itself_and_its_twins(client: Client, listing: Listing) -> None:
    page = client.get("/zh-hans/gpts/lab/letters/?utm_source=mail").text

    assert '<link rel="canonical" href="http://testserver/zh-hans/gpts/lab/letters/">' in page
    for language, code in (("en", "en"), ("zh-Hans", "zh-hans"), ("x-default", "en")):
        assert f'<link rel="alternate" hreflang="{language}" href="http://testserver/{code}/gpts/lab/letters/">' in page
    assert meta(page, "og:title") == "写信，作者：Lab" or "写信" in meta(page, "og:title")
    assert meta(page, "og:description") == meta(page, "description") == "把话写成信。"
    assert meta(page, "og:locale") == "zh_CN"
    assert meta(page, "og:locale:alternate") == "en_US"
    assert NOINDEX not in page


def test_a_hostile_text_ends_no_attribute_and_no_data_block(client: Client, listing: Listing) -> None:
    page = client.get("/en/gpts/lab/letters/").text
    application, way = blocks(page)

    assert "<script>alert" not in page
    assert meta(page, "og:title") == "The &quot;A &amp; B&quot; &lt;GPT&gt; by Lab"
    assert application["description"] == "</script><script>alert(1)</script>"
    assert [step["name"] for step in way["itemListElement"]][-1] == 'The "A & B" <GPT>'


def test_ratings_are_told_only_where_there_are_some(client: Client, listing: Listing) -> None:
    Listing.objects.filter(pk=listing.pk).update(input_price_micro=250_000, output_price_micro=1_000_000)
    before = blocks(client.get("/en/gpts/lab/letters/").text)[0]
    RatingSummary.objects.update_or_create(listing=listing, defaults={"count": 4, "total": 17})

    after = blocks(client.get("/en/gpts/lab/letters/").text)[0]

    assert "aggregateRating" not in before
    assert (after["aggregateRating"]["ratingValue"], after["aggregateRating"]["ratingCount"]) == (4.25, 4)
    assert [part["price"] for part in after["offers"]["priceSpecification"]] == [0.25, 1.0]
    assert after["author"]["url"] == "http://testserver/en/publishers/lab/"


def test_who_asks_for_a_month_offers_both(client: Client, listing: Listing) -> None:
    asks = {"output_price_micro": 1_000_000, "monthly_price_micro": 4_500_000, "monthly_tokens": 2_000_000}
    Listing.objects.filter(pk=listing.pk).update(**asks)

    by_the_token, monthly = blocks(client.get("/en/gpts/lab/letters/").text)[0]["offers"]

    assert by_the_token["price"] == 1.0
    assert monthly["price"] == monthly["priceSpecification"]["price"] == 4.5
    assert (monthly["priceSpecification"]["billingDuration"], monthly["priceSpecification"]["unitCode"]) == (30, "DAY")


@pytest.mark.parametrize(
    ("path", "is_indexed"),
    [
        ("explore/", True),
        ("learn/risks/", True),
        ("explore/?use_case=chat", True),
        ("explore/?use_case=nonsense", False),
        ("explore/?use_case=chat&sort=new", False),
        ("explore/?q=mail", False),
        ("chat/", False),
        ("account/login/", False),
        ("gpts/lab/secret/", False),
        ("gpts/lab/nothing/", False),
    ],
)
def test_only_pages_that_stand_for_themselves_are_kept(client: Client, listing: Listing, path: str, is_indexed: bool) -> None:
    making.release(making.draft_prompt(making.make_base(), making.make_listing(listing.publisher, "secret")), visibility="unlisted")

    page = client.get(f"/en/{path}").text

    assert (NOINDEX not in page) == is_indexed
    if is_indexed:
        assert f'<link rel="canonical" href="http://testserver/en/{path}">' in page


def test_the_sitemap_names_each_gpt_in_each_language(client: Client, listing: Listing) -> None:
    making.release(making.draft_prompt(making.make_base(), making.make_listing(listing.publisher, "secret")), visibility="unlisted")

    index = ElementTree.fromstring(client.get("/sitemap.xml").content)
    places = [str(place.text) for place in index.iter(f"{SITEMAP}loc")]
    found = [
        str(place.text)
        for part in places
        for place in ElementTree.fromstring(client.get(part.removeprefix("http://testserver")).content).iter(f"{SITEMAP}loc")
    ]

    assert "http://testserver/sitemaps/pages.xml" in places
    for path in ("", "explore/", "explore/?use_case=chat", "gpts/lab/letters/", "publishers/lab/"):
        assert {f"http://testserver/{code}/{path}" for code in ("en", "zh-hans")} <= set(found), path
    assert not [place for place in found if "secret" in place]
    assert len(found) == len(set(found))


def test_a_part_of_the_sitemap_is_a_range_of_keys(client: Client, listing: Listing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crawlers, "KEYS_PER_PART", 1)
    making.make_prompt(listing=making.make_listing(listing.publisher, "poems"))

    with CaptureQueriesContext(
        connection,
    ) as queries:
        one = client.get(f"/sitemaps/gpts-{listing.pk}.xml").text

    assert one.count("<url>") == 2
    assert "/en/gpts/lab/letters/" in one
    assert len(queries) == 1
    assert client.get("/sitemaps/gpts-x.xml").status_code == 404
    assert client.get("/sitemaps/users-0.xml").status_code == 404


def test_robots_may_read_use_cases_but_no_search_results_and_nothing_private(client: Client) -> None:
    lines = client.get("/robots.txt").text.splitlines()

    assert {"Disallow: /en/explore/?", "Allow: /en/explore/?use_case=", "Disallow: /en/explore/?use_case=*&"} <= set(lines)
    assert {"Disallow: /zh-hans/chat/", "Disallow: /zh-hans/studio/", "Disallow: /en/account/", "Disallow: /v1/"} <= set(lines)
    assert "Sitemap: http://testserver/sitemap.xml" in lines
