"""The public pages with little and with much in the store."""

from __future__ import annotations

import re
import time

import pytest
from django.core.cache import cache
from django.db import connection
from django.http import QueryDict
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from inference import protocol
from store.catalog import listings as catalogue
from store.catalog.models import Listing, Measurement, SavedSearch, Version
from store.generation.models import Request
from store.pages import saved_searches
from store.pages.exploring import Exploration
from store.valkey import client as valkey
from tests import making

pytestmark = pytest.mark.django_db
LESSONS = ["learn/gpt/", "learn/choosing/", "learn/quality/", "learn/risks/", "learn/publishing/"]
PUBLIC = ["", "explore/", "leaderboards/", "developers/", "about/", "review-policy/", *LESSONS]


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
        assert not re.search(r"<script(?![^>]*(?:\bsrc=|/ld\+json))|<style|\sstyle=|\son[a-z]+=|javascript:", response.text), path
        loaded = re.sub(r'<a [^>]*rel="license noopener"', "", response.text)  # a licence's text is a link, nothing that is loaded
        assert not re.search(r'(?:src|href)="(?:https?:)?//(?!testserver)', loaded), path


def test_the_language_switch_leads_to_the_same_page_with_the_same_question(client: Client) -> None:
    page = client.get("/en/explore/?q=mail&sort=new").text

    assert '<a href="/zh-hans/explore/?q=mail&amp;sort=new" lang="zh-Hans" hreflang="zh-Hans">' in page


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
            cache.clear()
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
    counts = {str(facet.label): {str(choice.label): choice.count.number for choice in facet.choices} for facet in look.facets}
    assert counts["Use case"] == {"Code": 1}
    assert counts["Works in"] == {"English": 4, "中文": 1}
    assert counts["Kind"] == {"Prompt GPT": 1}
    assert counts["Base model"] == {"small-base": 1}
    assert counts["Licence"] == {"Apache-2.0": 1}
    assert "Price" not in counts
    assert [(str(choice.label), choice.address) for choice in look.active] == [("中文", "?")]
    assert "No GPT fits all of these" in client.get("/en/explore/?language=zh&free=1").text


@pytest.mark.parametrize(
    ("query", "left_out"),
    [
        *[("sort=evil", "sort"), ("kind=evil", "kind"), ("free=maybe", "free"), ("language=%27", "language"), ("after=x", "after")],
        *[("base=../../etc%00", "base"), ("licence=%E2%80%AE", "licence"), ("rating=9", "rating"), ("q=" + "x" * 201, "q")],
    ],
)
@pytest.mark.parametrize("language", ["en", "zh-hans"])
def test_explore_names_what_it_left_out_of_an_address(client: Client, base: Version, query: str, left_out: str, language: str) -> None:
    answer = client.get(f"/{language}/explore/?{query}")

    assert answer.status_code == 200
    assert Exploration.of(QueryDict(query)).left_out == (left_out,)
    assert {"en": "mean nothing here and were left out: ", "zh-hans": "已略去："}[language] + left_out in answer.text


@pytest.mark.parametrize(
    "query", ["page=-1", "q=%00", "utm_source=x", "use_case=nothing", "q=%F0%9F%A4%96", "q=%E2%80%AEx", "sort=", "q=%"]
)
def test_explore_answers_whatever_else_is_in_its_address(client: Client, base: Version, query: str) -> None:
    answer = client.get(f"/en/explore/?{query}")

    assert answer.status_code == 200
    assert "left out" not in answer.text


def test_a_long_list_goes_on_where_the_page_before_ended(client: Client, base: Version) -> None:
    fill(base, 21)

    first = Exploration.of(QueryDict("use_case=chat"))
    second = Exploration.of(QueryDict(first.next.removeprefix("?")))

    assert (first.total.number, len(first.hits), first.first) == (22, 20, "")
    assert (len(second.hits), second.next, second.first) == (2, "", "?use_case=chat")
    assert not {listing.pk for listing in first.hits} & {listing.pk for listing in second.hits}
    assert "Back to the top of the list" in client.get(f"/en/explore/{first.next}").text
    assert "The list ends here" in client.get("/en/explore/?after=0.0_1").text


def test_a_misspelt_search_says_what_it_was_read_as(client: Client, base: Version) -> None:
    making.make_prompt(base, making.make_listing(slug="harbour", texts={"en": {"name": "Harbour", "summary": "Ships.", "card": ""}}))

    assert "No GPT has the word “harbuor”. Shown is what was found for: harbour." in client.get("/en/explore/?q=harbuor").text
    assert "没有 GPT 含有“harbuor”一词" in client.get("/zh-hans/explore/?q=harbuor").text
    assert "No GPT has all of these words." in client.get("/en/explore/?q=harbour+zebra").text


# ---------------------------------------------------------------- suggestions


def suggested(client: Client, q: str, language: str = "en") -> list[tuple[str, str]]:
    answer = client.get(f"/{language}/explore/suggest/", {"q": q})
    assert answer.status_code == 200
    assert not answer.cookies
    return [(row["label"], row["note"]) for row in answer.json()["suggestions"]]


def test_what_begins_like_the_text_is_suggested(client: Client, base: Version) -> None:
    texts = {"en": {"name": "Mail Summaries", "summary": ".", "card": ""}, "zh-hans": {"name": "邮件摘要", "summary": "。", "card": ""}}
    gpt = making.make_prompt(base, making.make_listing(making.make_publisher(slug="mail-house"), slug="mails", texts=texts)).listing

    assert suggested(client, "summ") == [("Summarise", "use case"), ("Mail Summaries", gpt.full_name)]
    assert suggested(client, "mail") == [("Mail Summaries", gpt.full_name), ("Mail-House", "publisher")]
    assert suggested(client, "邮件", "zh-hans") == [("邮件摘要", gpt.full_name)]
    assert suggested(client, "总", "zh-hans") == [("摘要", "用途")]
    for nothing in ("", " ", "!", "%", "\x00", "\u200b", "zzz", "x" * 5000):
        assert suggested(client, nothing) == []


def test_suggestions_cost_the_same_however_many(client: Client, base: Version) -> None:
    counts = []
    for more in (1, 8):
        fill(base, more)
        with CaptureQueriesContext(connection) as queries:
            assert suggested(client, "gp")
        counts.append(len(queries))

    assert counts[0] == counts[1] <= 7


# ---------------------------------------------------------------- saved searches


def test_a_person_keeps_a_search_and_forgets_it(client: Client, base: Version) -> None:
    person = making.make_user()
    client.force_login(person)

    for address in ("sort=new&q=poem+writer&use_case=write&after=1.5_3&junk=1", "q=poem+writer&use_case=write&sort=new"):
        answer = client.post("/en/explore/saved/", {"address": address})
        assert answer["Location"] == "/en/explore/?q=poem+writer&use_case=write&sort=new#saved"
    page = client.get("/en/explore/").text

    assert "“poem writer” · Write" in page
    (kept,) = person.saved_searches.all()
    client.post(f"/en/explore/saved/{kept.public_id}/forget/")
    assert not person.saved_searches.exists()


def test_nobody_forgets_what_another_has_saved(client: Client) -> None:
    kept = saved_searches.save(making.make_user(), "q=poem")

    client.force_login(making.make_user())
    assert client.post(f"/en/explore/saved/{kept.public_id}/forget/").status_code == 404

    assert SavedSearch.objects.get().pk == kept.pk


@pytest.mark.parametrize(
    ("address", "status"), [("", 422), ("sort=new", 422), ("use_case=%00", 422), ("q=x", 302), ("q=" + "中" * 500, 302)]
)
def test_only_a_search_is_saved(client: Client, address: str, status: int) -> None:
    client.force_login(making.make_user())

    assert client.post("/en/explore/saved/", {"address": address}).status_code == status


def test_a_search_too_long_for_its_row_is_refused_by_name_and_none_is_cut(client: Client) -> None:
    person = making.make_user()
    client.force_login(person)
    kept = "q=" + "\U0001f600" * 200
    filters = "".join(f"&{name}={'x' * 100}" for name in ("use_case", "language", "base", "licence"))

    assert client.post("/en/explore/saved/", {"address": kept}).status_code == 302
    assert client.post("/en/explore/saved/", {"address": kept + filters}).status_code == 422
    assert client.post("/en/explore/saved/", {"address": "q=" + "a" * 100_000}).status_code == 302

    assert [len(QueryDict(saved.address)["q"]) for saved in person.saved_searches.all()] == [200, 200]


def test_many_saved_searches_cost_as_many_queries_as_one(client: Client, base: Version) -> None:
    person = making.make_user()
    client.force_login(person)
    counts = []
    for number in (1, 12):
        for one in range(number):
            saved_searches.save(person, f"q=poem{number}{one}&use_case=write")
        with CaptureQueriesContext(connection) as queries:
            client.get("/en/explore/")
        counts.append(len(queries))

    assert counts[0] == counts[1]


def test_there_is_an_end_to_saving(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved_searches, "MOST", 1)
    person = making.make_user()
    saved_searches.save(person, "q=one")
    client.force_login(person)

    assert client.post("/en/explore/saved/", {"address": "q=two"}).status_code == 409
    assert client.post("/en/explore/saved/", {"address": "q=one"}).status_code == 302
    assert person.saved_searches.count() == 1


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
    assert f'model=<span class="s">"{listing.full_name}@1.0.0"</span>' in page
    assert "Pinned to 1.0.0, which never changes. Leave out @1.0.0 to follow the current version." in page
    assert "http://testserver/v1" in page
    assert f'href="/en/gpts/{base.listing.full_name}/"' in page
    assert "curl -N http://testserver/v1/chat/completions" in client.get(f"/en/gpts/{listing.full_name}/?code=curl").text


def test_a_listing_page_names_every_language_it_can_claim(client: Client, base: Version) -> None:
    listing = making.make_prompt(base, making.make_listing(languages=list(catalogue.LANGUAGE_TAGS))).listing

    page = client.get(f"/en/gpts/{listing.full_name}/")

    assert page.status_code == 200
    assert "Deutsch, English, Español" in page.text
    assert "中文" in page.text


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

    assert "not served yet" in client.get(page).text
    valkey().zadd(served, {"float32": now - 3600, "bfloat16": now - 7200})
    assert "32-bit weights (float32)" in client.get(page).text  # by nobody now, and by these last
    valkey().zadd(served, {"int8": now})
    text = client.get(page).text
    assert "8-bit weights (int8)" in text
    assert "(float32)" not in text
    valkey().zadd(served, {"vllm": now})
    assert "the precision of a vLLM server" in client.get(page).text
    assert "the precision of a vLLM server" in client.get(f"/en/compare/?gpt={listing.full_name}").text
    assert "the precision of a vLLM server" in client.get(f"/en/chat/new/?model={listing.full_name}").text


def test_a_listing_page_says_how_much_memory_its_base_takes(client: Client, base: Version) -> None:
    listing = fill(base, 1)[0]
    base.facts["memory_bytes"] = {"float32": 3 * 2**30, "int8": 2**30}
    base.save()
    page = f"/en/gpts/{listing.full_name}/"

    assert "<div>3.0\xa0GB in float32</div><div>1.0\xa0GB in int8</div>" in client.get(page).text
    assert base.artifact is not None
    valkey().zadd(protocol.precision_key(base.artifact.digest), {"int8": time.time()})
    assert "<dd><div>1.0\xa0GB in int8</div></dd>" in client.get(page).text


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
