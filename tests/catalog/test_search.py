from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone, translation

from store.catalog import search
from store.catalog.models import Listing, Version
from tests import making

pytestmark = pytest.mark.django_db


@pytest.fixture
def base() -> Version:
    return making.make_base(slug="smollm2", texts={"en": {"name": "SmolLM2", "summary": "A small model.", "card": "134 million."}})


def listed(base: Version, slug: str, *, en: str = "", zh: str = "", card: str = "", **fields: object) -> Listing:
    texts = {"en": {"name": en or slug, "summary": f"Does {slug} well.", "card": card}}
    if zh:
        texts["zh-hans"] = {"name": zh, "summary": "很好用。", "card": ""}
    return making.make_prompt(base, making.make_listing(slug=slug, texts=texts, **fields)).listing


def names(**query: object) -> list[str]:
    return [listing.slug for listing in search.find(**query)]  # type: ignore[arg-type]


@pytest.mark.parametrize("q", ["摘要", "要工", "工具", "摘要工具", "摘", "具", "新闻 摘要", "ＴＬＤＲ", "tl", "新闻摘要工具 tldr"])
def test_chinese_words_inside_longer_ones_and_single_characters_are_found(base: Version, q: str) -> None:
    listed(base, "tldr", zh="新闻摘要工具")
    listed(base, "other", zh="翻译助手")

    assert names(q=q) == ["tldr"]


@pytest.mark.parametrize("q", ["要摘", "摘要 翻译", "ldr", "nothing", "!!!", "%", "^tldr x"])
def test_what_is_not_there_is_not_found(base: Version, q: str) -> None:
    listed(base, "tldr", zh="新闻摘要工具")

    assert names(q=q) == []


def test_every_word_must_be_found_and_names_come_first(base: Version) -> None:
    listed(base, "alpha", card="A poem about the sea.")
    listed(base, "poem-writer", en="Poem writer")
    Listing.objects.filter(slug="alpha").update(request_count=100)

    assert names(q="poem") == ["poem-writer", "alpha"]
    assert names(q="Poem WRITER") == ["poem-writer"]
    assert names(q="poem sea") == ["alpha"]
    assert set(names(q="smollm2")) == {"smollm2", "alpha", "poem-writer"}


def test_filters_and_facets_count_what_is_found(base: Version) -> None:
    listed(base, "free-en", use_cases=["write", "chat"])
    listed(base, "paid-zh", use_cases=["write"], languages=["zh", "en"], input_price_micro=5)

    assert names(kind="weights") == ["smollm2"]
    assert names(language="zh") == ["paid-zh"]
    assert set(names(use_case="write")) == {"free-en", "paid-zh"}
    assert set(names(free=True)) == {"free-en", "smollm2"}
    counts = {use_case.slug: count for use_case, count in search.use_case_counts(search.find(q="does"))}
    assert counts == {"chat": 1, "write": 2}


def test_sorts(base: Version) -> None:
    first = listed(base, "beta", en="Apple", zh="丙")
    listed(base, "alpha", en="banana", zh="乙")
    Listing.objects.filter(pk=first.pk).update(request_count=5, published_at=timezone.now() - timedelta(days=2))

    assert names(sort="popular")[0] == "beta"
    assert names(sort="new") == ["alpha", "smollm2", "beta"]
    assert names(sort="name") == ["beta", "alpha", "smollm2"]
    with translation.override("zh-hans"):
        assert [listing.text().name for listing in search.find(sort="name")] == ["SmolLM2", "丙", "乙"]


def test_drafts_and_unlisted_ones_are_never_found(base: Version) -> None:
    making.draft_prompt(base, making.make_listing(slug="hidden-draft"))
    making.release(making.draft_prompt(base, making.make_listing(slug="hidden-unlisted")), visibility="unlisted")

    assert names(q="hidden") == []


def test_a_page_of_cards_costs_the_same_however_many(base: Version, django_assert_num_queries: object) -> None:
    for n in range(3):
        listed(base, f"gpt-{n}", use_cases=["chat", "write"])

    with django_assert_num_queries(3):  # type: ignore[operator]
        for listing in search.find():
            assert listing.text("en").name
            assert listing.publisher.slug
            assert list(listing.use_cases.all())
            assert listing.current_version.base is None or listing.current_version.base.listing.publisher.slug
