"""The public pages with little and with much in the store."""

from __future__ import annotations

import re
import time

import pytest
from django.db import connection
from django.http import QueryDict
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from inference import protocol
from store.catalog.models import Listing, Measurement, Version
from store.generation.models import Request
from store.pages.exploring import Exploration
from store.valkey import client as valkey
from tests import making

pytestmark = pytest.mark.django_db
PUBLIC = ["", "explore/", "developers/", "about/", "review-policy/"]


@pytest.fixture
def base() -> Version:
    return making.make_base(slug="small-base")


def fill(base: Version, count: int) -> list[Listing]:
    publisher = making.make_publisher()
    versions = [making.make_prompt(base, making.make_listing(publisher, use_cases=["chat", "write"])) for _ in range(count)]
    for version in versions:
        Measurement.objects.create(version=version, name="perplexity", value=18.2, low=17.9, high=18.5, base_value=18.4)
        Request.objects.create(version=version, source="api", state="finished", deadline_at=timezone.now())
    return [version.listing for version in versions]


# ---------------------------------------------------------------- every page


@pytest.mark.parametrize("language", ["en", "zh-hans"])
@pytest.mark.parametrize("path", PUBLIC)
def test_pages_answer_in_an_empty_store(client: Client, language: str, path: str) -> None:
    response = client.get(f"/{language}/{path}")

    assert response.status_code == 200
    assert f'<html lang="{ {"en": "en", "zh-hans": "zh-Hans"}[language] }">' in response.text


def test_reading_sets_no_cookie_and_nothing_inline_is_needed(client: Client, base: Version) -> None:
    listing = fill(base, 1)[0]

    for path in [*PUBLIC, f"gpts/{listing.full_name}/", f"publishers/{listing.publisher.slug}/"]:
        response = client.get(f"/en/{path}")
        assert response.status_code == 200, path
        assert not response.cookies, path
        policy = response["Content-Security-Policy"]
        assert "unsafe" not in policy
        assert "script-src 'self'" in policy
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=|javascript:", response.text), path
        assert not re.search(r'(?:src|href)="(?:https?:)?//(?!testserver)', response.text), path


def test_the_language_switch_leads_to_the_same_page_with_the_same_question(client: Client) -> None:
    page = client.get("/en/explore/?q=mail&sort=new").text

    assert '<a href="/zh-hans/explore/?q=mail&amp;sort=new" lang="zh-Hans" hreflang="zh-Hans">' in page
    assert '<link rel="alternate" hreflang="zh-Hans" href="http://testserver/zh-hans/explore/">' in page
    assert '<link rel="canonical" href="http://testserver/en/explore/">' in page


def test_a_page_without_a_language_is_sent_to_one(client: Client) -> None:
    assert client.get("/", headers={"accept-language": "zh-CN"})["Location"] == "/zh-hans/"
    assert client.get("/", headers={"accept-language": "fr"})["Location"] == "/en/"


# ---------------------------------------------------------------- the lists


def test_home_and_explore_ask_the_same_number_of_queries_for_two_and_for_twenty(client: Client, base: Version) -> None:
    counts = []
    for more in (2, 18):
        fill(base, more)
        prompts = [making.make_prompt(making.make_adapter(making.make_trained(base))) for _ in range(more)]
        assert len(prompts) == more
        for path in ("/en/", "/en/explore/?q=gpt"):
            client.get(path)
            with CaptureQueriesContext(connection) as queries:
                client.get(path)
            counts.append(len(queries))

    assert counts[:2] == counts[2:]
    assert max(counts) <= 30


def test_explore_filters_counts_and_shows_what_is_set(client: Client, base: Version) -> None:
    fill(base, 2)
    paid = making.make_listing(use_cases=["code"], output_price_micro=500_000, languages=["en", "zh"])
    making.make_prompt(base, paid)

    look = Exploration.of(QueryDict("language=zh"))

    assert [listing.pk for listing in look.hits] == [paid.pk]
    counts = {str(facet.label): {str(choice.label): choice.count for choice in facet.choices} for facet in look.facets}
    assert counts["Use case"] == {"Code": 1}
    assert counts["Works in"] == {"English": 4, "中文": 1}
    assert counts["Kind"] == {"Prompt GPT": 1}
    assert "Price" not in counts
    assert [(str(choice.label), choice.address) for choice in look.active] == [("中文", "?")]
    assert "No GPT fits all of these" in client.get("/en/explore/?language=zh&free=1").text


def test_explore_takes_nonsense_in_its_address_for_nothing(client: Client, base: Version) -> None:
    fill(base, 1)

    for query in ("page=-1", "page=x", "page=99999999999", "sort=evil", "kind=evil", "q=%00", "free=maybe", "language=%27", "page=²"):
        assert client.get(f"/en/explore/?{query}").status_code == 200, query


def test_a_long_list_goes_on_at_the_next_page(base: Version) -> None:
    fill(base, 21)

    first, second = Exploration.of(QueryDict("")), Exploration.of(QueryDict("page=2"))

    assert (first.total, len(first.hits), first.next, first.previous) == (22, 20, "?page=2", "")
    assert (len(second.hits), second.next, second.previous) == (2, "", "?")
    assert not {listing.pk for listing in first.hits} & {listing.pk for listing in second.hits}


# ---------------------------------------------------------------- one listing


def test_a_listing_page_shows_what_was_measured_and_the_code_with_its_real_name(client: Client, base: Version) -> None:
    listing = fill(base, 1)[0]
    Request.objects.create(
        version=listing.current_version,
        source="chat",
        state="finished",
        completion_tokens=61,
        first_token_ms=50,
        duration_ms=350,
        deadline_at=timezone.now(),
    )

    page = client.get(f"/en/gpts/{listing.full_name}/").text

    assert "<b>18.2</b> ± 0.3" in page
    assert "base 18.4" in page
    assert "200 <small>tokens/s</small>" in page
    assert f'model=<span class="s">"{listing.full_name}"</span>' in page
    assert "http://testserver/v1" in page
    assert f'href="/en/gpts/{base.listing.full_name}/"' in page
    assert "curl -N http://testserver/v1/chat/completions" in client.get(f"/en/gpts/{listing.full_name}/?code=curl").text


def test_weights_that_were_trained_show_what_from_and_are_shown_there(client: Client, base: Version) -> None:
    trained = making.make_trained(base, making.make_listing(slug="trained", licence="MIT", allow_finetune=True))
    adapter = making.make_adapter(trained, making.make_listing(slug="tuned"))

    page, bases, adapters = (client.get(f"/en/gpts/{version.listing.full_name}/").text for version in (trained, base, adapter))
    cards = client.get("/en/explore/").text

    assert "Fine-tune, all weights" in page
    assert f'href="/en/gpts/{base.listing.full_name}/"' in page
    assert f'href="/en/gpts/{trained.listing.full_name}/"' in bases
    assert adapters.index(base.listing.text().name) < adapters.index("Fine-tune, LoRA")
    assert "its base" not in page  # nothing was measured beside it
    assert f"trained from {base.listing.slug}" in cards


def test_a_listing_page_says_in_which_precision_its_base_is_served(client: Client, base: Version) -> None:
    listing, now = fill(base, 1)[0], time.time()
    assert base.artifact is not None
    served = protocol.precision_key(base.artifact.digest)
    page = f"/en/gpts/{listing.full_name}/"

    assert "Served in" not in client.get(page).text
    valkey().zadd(served, {"float32": now - 3600, "bfloat16": now - 7200})
    assert "32-bit weights (float32)" in client.get(page).text  # by nobody now, and by these last
    valkey().zadd(served, {"int8": now})
    text = client.get(page).text
    assert "8-bit weights (int8)" in text
    assert "(float32)" not in text
    valkey().zadd(served, {"vllm": now})
    assert "the precision of a vLLM server" in client.get(page).text


def test_markup_in_what_publishers_write_stays_text(client: Client, base: Version) -> None:
    hostile = '"><script>alert(1)</script>'
    listing = making.make_listing(texts={"en": {"name": hostile, "summary": hostile, "card": hostile}})
    making.make_prompt(base, listing, starters=[hostile], change_log=hostile)

    for path in ("/en/", "/en/explore/", f"/en/gpts/{listing.full_name}/", f"/en/publishers/{listing.publisher.slug}/"):
        page = client.get(path).text
        assert "<script>alert" not in page, path
        assert "&lt;script&gt;alert(1)" in page, path


def test_a_draft_is_seen_by_members_and_reviewers_only(client: Client, base: Version) -> None:
    draft = making.draft_prompt(base)
    address = f"/en/gpts/{draft.listing.full_name}/"

    assert client.get(address).status_code == 404
    client.force_login(making.make_user())
    assert client.get(address).status_code == 404
    for user in (making.owner_of(draft.listing.publisher), making.join(draft.listing.publisher, "member"), making.make_reviewer()):
        client.force_login(user)
        page = client.get(address)
        assert page.status_code == 200
        assert "Only members of the publisher and reviewers see this page." in page.text
        assert "noindex" in page.text


def test_a_listing_speaks_the_language_of_the_reader_where_it_can(client: Client, base: Version) -> None:
    texts = {
        "en": {"name": "Plain Mail", "summary": "Short mail.", "card": ""},
        "zh-hans": {"name": "短信写手", "summary": "写短信。", "card": ""},
    }
    listing = making.make_prompt(base, making.make_listing(texts=texts)).listing

    assert '<h1 lang="zh-Hans">短信写手</h1>' in client.get(f"/zh-hans/gpts/{listing.full_name}/").text
    assert '<h1 lang="en">Plain Mail</h1>' in client.get(f"/en/gpts/{listing.full_name}/").text


def test_every_page_shows_the_price_with_what_the_base_asks(client: Client, base: Version) -> None:
    gpt = making.make_prompt(base, making.make_listing(slug="poet", input_price_micro=100_000, output_price_micro=100_000)).listing
    Listing.objects.filter(pk=base.listing_id).update(input_price_micro=200_000, output_price_micro=200_000)

    page = client.get(f"/en/gpts/{gpt.full_name}/").text
    assert "<b>$0.30</b><small>per 1M tokens</small>" in page
    assert "$0.10 / 1M tokens for this GPT" in page
    assert f'$0.20 / 1M tokens for <a class="link" href="/en/gpts/{base.listing.full_name}/">small-base</a>' in page
    assert "This GPT has a price, so trying it takes an account." in page
    assert "<b>$0.30</b><small>per 1M tokens</small>" in client.get("/en/explore/").text
    assert '<span class="price">$0.30 / 1M tokens</span>' in client.get("/en/").text
    client.force_login(making.owner_of(gpt.publisher))
    assert "$0.20 / 1M tokens." in client.get(f"/en/chat/new/?model={gpt.full_name}").text  # its own publisher pays the base
    assert "People pay $0.30 / 1M tokens" in client.get(f"/en/studio/gpts/{gpt.full_name}/").text
    assert f"{base.full_name} · $0.20 / 1M tokens" in client.get(f"/en/studio/publishers/{gpt.publisher.slug}/new/").text


def test_home_lets_a_visitor_try_what_is_free(client: Client, base: Version) -> None:
    paid = making.make_prompt(base, making.make_listing(output_price_micro=100_000)).listing
    Listing.objects.filter(pk=paid.pk).update(featured=1, request_count=9)
    free = making.make_prompt(base, making.make_listing(), starters=["Say hello"]).listing
    Listing.objects.filter(pk=free.pk).update(request_count=5)

    page = client.get("/en/").text

    assert f'data-ask="/en/chat/try/{free.full_name}/"' in page
    assert f'model=<span class="s">"{free.full_name}"</span>' in page
