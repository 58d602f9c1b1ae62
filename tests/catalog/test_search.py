"""What is found, by which words, on both databases."""

from __future__ import annotations

import pytest
from django.db import connection
from django.db.models import F
from django.utils import timezone

from store.catalog import listings, releases, search
from store.catalog.models import Listing, SearchEntry, SearchHead, SearchText, UseCase, Version
from store.catalog.search import documents, finding, heading, spelling, terms
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


def names(q: str = "", *facts: str, sort: str = "best") -> list[str]:
    return [listing.slug for listing in search.find(q=q, facts=facts, sort=sort).page().listings]


# ---------------------------------------------------------------- words


@pytest.mark.parametrize("q", ["摘要", "要工", "工具", "摘要工具", "摘", "具", "新闻 摘要", "ＴＬＤＲ", "tl", "新闻摘要工具 tldr"])
def test_chinese_words_inside_longer_ones_and_single_characters_are_found(base: Version, q: str) -> None:
    listed(base, "tldr", zh="新闻摘要工具")
    listed(base, "other", zh="翻译助手")

    assert names(q) == ["tldr"]


@pytest.mark.parametrize(
    "q", ["要摘", "ldr", "nothing", "!!!", "%", "^", "~x", "'", '"', ":use/chat", "a' | 'b", 'x" OR "y', "\\", "\u200b"]
)
def test_what_is_not_there_is_not_found(base: Version, q: str) -> None:
    listed(base, "tldr", zh="新闻摘要工具", use_cases=["write"])

    assert "tldr" not in names(q)


def test_names_come_first_then_what_leads_to_a_listing_then_its_description(base: Version) -> None:
    listed(base, "alpha", card="A poem about the sea.")
    listed(base, "poem-writer", en="Poem writer")
    listed(base, "beta", use_cases=["write"])
    SearchEntry.objects.filter(listing__slug="alpha").update(rank=0.7)

    assert names("poems") == ["poem-writer", "beta", "alpha"]  # a synonym of "write" finds what serves it
    assert names("Poem WRITER")[0] == "poem-writer"
    assert names("sea") == ["alpha"]
    assert set(names("smollm2")) == {"smollm2", "alpha", "poem-writer", "beta"}


def test_a_name_that_is_exactly_what_was_asked_for_comes_before_longer_ones(base: Version) -> None:
    listed(base, "one", en="Plain mail helper")
    listed(base, "two", en="Plain Mail")
    SearchEntry.objects.filter(listing__slug="one").update(rank=0.55)

    assert names("plain mail") == ["two", "one"]


@pytest.mark.parametrize("q", ["sumarize", "summarzie", "sumamrize", "summarizze", "xummarize"])
def test_a_word_with_a_typo_finds_what_was_meant_and_says_so(base: Version, q: str) -> None:
    listed(base, "tool", en="Summarize letters")

    found = search.find(q=q)

    assert [listing.slug for listing in found.page().listings] == ["tool"]
    assert found.question.mended == {q: ["summarize"]}


@pytest.mark.parametrize("hide", [{"visibility": "draft"}, {"visibility": "unlisted"}, {"suspended_at": timezone.now()}])
def test_no_word_that_only_a_hidden_listing_has_is_told_to_a_visitor(base: Version, hide: dict) -> None:
    hidden = listed(base, "hidden", en="Operation Merganser")
    Listing.objects.filter(pk=hidden.pk).update(**hide)
    search.refresh(hidden)
    assert spelling.Spelling.objects.filter(word="merganser").exists()

    for q in ("mergansr", "merganser"):
        found = search.find(q=q)
        assert found.question.mended == {}
        assert found.page().listings == []

    listed(base, "shown", en="Merganser watch")
    assert search.find(q="mergansr").question.mended == {"mergansr": ["merganser"]}


def test_many_unknown_words_cost_as_many_queries_as_one(base: Version, django_assert_num_queries: object) -> None:
    listed(base, "harbour", en="Harbour letters")

    for q in ("harbxur", "harbxur lettxrs " + " ".join(f"qqqz{chr(97 + number)}" for number in range(25))):
        with django_assert_num_queries(3):  # type: ignore[operator]
            assert search.find(q=q, use_cases=[]).question.mended["harbxur"] == ["harbour"]


def test_what_is_known_is_not_mended(base: Version) -> None:
    listed(base, "trains", en="Trains")
    listed(base, "brains", en="Brains")

    assert names("brains") == ["brains"]
    assert search.find(q="brains").question.mended == {}


@pytest.mark.parametrize(
    ("one", "other", "is_one"),
    [
        *[("form", "from", True), ("mail", "mails", True), ("mail", "main", True), ("mail", "mail", False), ("mail", "nails", False)],
        *[("abcd", "badc", False), ("abcd", "abdd", True), ("ab", "ba", True), ("abc", "acb", True), ("abcd", "dbca", False)],
    ],
)
def test_one_edit(one: str, other: str, is_one: bool) -> None:
    assert spelling.is_one_edit(one, other) is spelling.is_one_edit(other, one) is is_one


@pytest.mark.parametrize("q", ["summary", "tl;dr", "总结", "概括长文章", "a GPT that can summarise", "帮我总结一下", "recap"])
def test_synonyms_of_a_use_case_find_what_serves_it_in_both_languages(base: Version, q: str) -> None:
    listed(base, "short", use_cases=["summarise"], card="长文章")
    listed(base, "other", use_cases=["code"])

    assert names(q) == ["short"]


def test_an_operators_own_synonyms_are_known_at_once(base: Version) -> None:
    UseCase.objects.create(slug="cook", name_en="Cook", name_zh="烹饪", icon="chat", synonyms="recipes, 菜谱")
    listed(base, "chef", use_cases=["cook"])

    assert names("recipes") == names("家常菜谱") == names("recipe ideas for cooking") == ["chef"]


def test_where_nothing_holds_all_words_those_that_hold_most_come_first(base: Version) -> None:
    listed(base, "one", en="Lighthouse keeper")
    listed(base, "two", en="Lighthouse harbour")

    found = search.find(q="harbour lighthouse zebra")

    assert [listing.slug for listing in found.page().listings] == ["two", "one"]
    assert found.is_in_part
    assert not search.find(q="lighthouse").is_in_part


def test_accents_and_width_make_no_difference(base: Version) -> None:
    listed(base, "cafe", en="Café Menü")

    assert names("cafe") == names("CAFÉ menu") == names("ｃａｆｅ") == ["cafe"]


# ---------------------------------------------------------------- filters, counts, orders


def test_filters_and_facets_count_what_is_found(base: Version) -> None:
    listed(base, "free-en", use_cases=["write", "chat"])
    listed(base, "paid-zh", use_cases=["write"], languages=["zh", "en"], input_price_micro=5)

    assert names("", "kind/weights") == ["smollm2"]
    assert names("", "lang/zh") == ["paid-zh"]
    assert set(names("", "use/write")) == {"free-en", "paid-zh"}
    assert set(names("", "free")) == {"free-en", "smollm2"}
    assert names("does", "use/write", "free") == ["free-en"]
    assert set(names("", f"base/{base.listing.full_name}")) == {"free-en", "paid-zh"}
    assert set(names("", "size/s")) == {"free-en", "paid-zh", "smollm2"}
    counts = {fact: count.number for fact, count in search.find(q="does").counts("use/").items()}
    assert counts == {"use/chat": 1, "use/write": 2}
    assert search.find(q="does", facts=["use/chat"]).counts("use/", "use/chat")["use/write"].number == 2
    assert search.find(facts=["use/nothing"]).total == finding.Count(0)


def test_sorts(base: Version) -> None:
    listed(base, "beta", en="Apple", zh="丙")
    listed(base, "alpha", en="banana", zh="乙", input_price_micro=7)
    SearchEntry.objects.filter(listing__slug="beta").update(published=F("published") - 86_400, heat=3.0, rating=4.0)

    assert names(sort="popular")[0] == names(sort="rating")[0] == "beta"
    assert names(sort="new") == ["alpha", "smollm2", "beta"]
    assert names(sort="name") == ["beta", "alpha", "smollm2"]
    assert names(sort="price")[-1] == "alpha"
    assert names("does", sort="name") == ["beta", "alpha"]


@pytest.mark.parametrize("sort", list(search.SORTS))
@pytest.mark.parametrize("q", ["", "does"])
def test_pages_by_position_show_everything_once_and_in_order(base: Version, sort: str, q: str) -> None:
    for number in range(7):
        listed(base, f"gpt-{number}", en=f"Name {number % 3}")
    SearchEntry.objects.update(rank=0.5, published=1.5)  # what is equal is told apart by its listing
    everything = [listing.pk for listing in search.find(q=q, sort=sort).page(size=50).listings]

    shown, after, pages = [], "", 0
    while pages == 0 or after:
        page = search.find(q=q, sort=sort, after=after).page(size=3)
        shown += [listing.pk for listing in page.listings]
        after, pages = page.next, pages + 1

    assert shown == everything
    assert len(set(shown)) == len(shown) == (7 if q else 8)


@pytest.mark.parametrize("after", ["x", "_", "1_x", "nan_1", "inf_2", "1_99999999999999999999", "zz_1", "1__2", "１_１"])
@pytest.mark.parametrize("sort", ["best", "name"])
def test_a_position_that_no_page_said_begins_at_the_top(base: Version, after: str, sort: str) -> None:
    assert [listing.slug for listing in search.find(sort=sort, after=after).page().listings] == ["smollm2"]


def test_of_more_than_can_be_looked_at_the_best_come_first_and_counts_say_at_least(base: Version, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(6):
        listed(base, f"gpt-{number}", use_cases=["write"])
    SearchEntry.objects.filter(listing__slug="gpt-0").update(rank=0.9)
    SearchEntry.objects.filter(listing__slug="gpt-5").update(rank=0.8)
    monkeypatch.setattr(finding, "CANDIDATES", 2)
    monkeypatch.setattr(finding, "READ", 2)

    for found in (search.find(q="does"), search.find(facts=["use/write"]), search.find(q="does", facts=["use/write"])):
        assert [listing.slug for listing in found.page().listings][:2] == ["gpt-0", "gpt-5"]
        assert found.total.has_more
        assert all(count.is_least for count in found.counts("use/").values())
    assert finding.Count(1_001).has_more
    assert (finding.Count(1_000).has_more, finding.Count(1_234).shown) == (False, 1_000)


# ---------------------------------------------------------------- kept right


def test_drafts_unlisted_and_suspended_ones_are_never_found(base: Version) -> None:
    making.draft_prompt(base, making.make_listing(slug="hidden-draft"))
    making.release(making.draft_prompt(base, making.make_listing(slug="hidden-unlisted")), visibility="unlisted")
    shown = listed(base, "hidden-not")
    assert names("hidden") == ["hidden-not"]

    listings.suspend(base.listing)  # and with it what is built on it
    assert names("hidden") == names() == []
    assert search.find(facts=["use/chat"]).total.number == 0
    listings.restore(base.listing)
    assert names("hidden") == ["hidden-not"]
    releases.suspend(Version.objects.get(pk=shown.current_version_id))
    assert names("hidden") == []
    assert set(search.anywhere("hidden")) == set(Listing.objects.filter(slug__startswith="hidden").values_list("pk", flat=True))


def test_what_the_index_does_not_know_yet_is_not_shown_either(base: Version) -> None:
    listed(base, "gone")
    Listing.objects.filter(slug="gone").update(visibility="unlisted")

    assert names("gone") == []


def test_the_price_of_a_base_moves_what_is_built_on_it(base: Version) -> None:
    listed(base, "built")
    owner = making.owner_of(base.listing.publisher)

    listings.set_prices(owner, base.listing, input_price_micro=0, output_price_micro=9)
    assert names("", "free") == ["built"]  # for the seconds until the store's worker comes round
    assert documents.refresh_stale() == 1

    assert names("", "free") == []
    assert SearchEntry.objects.get(listing__slug="built").price == 9
    assert documents.refresh_stale() == 0


def test_new_texts_replace_the_old_ones_in_the_index(base: Version) -> None:
    listing = listed(base, "mail", en="Postcard")
    SearchText.objects.filter(listing=listing).update(terms=" letter ")
    assert (names("postcard"), names("letter")) == ([], ["mail"])

    search.refresh(listing)

    assert (names("postcard"), names("letter")) == (["mail"], [])
    SearchText.objects.filter(listing=listing).delete()
    assert names("postcard") == []


def test_terms_are_the_same_for_one_listing_and_for_all(base: Version) -> None:
    for number in range(3):
        listed(base, f"gpt-{number}", zh="摘要", use_cases=["write", "chat"])
    before = dict(SearchText.objects.values_list("pk", "terms"))
    SearchText.objects.all().delete()
    SearchEntry.objects.all().delete()

    assert documents.refresh_all() == 4

    assert dict(SearchText.objects.values_list("pk", "terms")) == before
    assert names("摘要") == ["gpt-2", "gpt-1", "gpt-0"]


def test_no_term_is_cut_by_the_database(base: Version) -> None:
    listed(base, "odd", en="C++ Ünïcode ﬀ ①② " + "y" * 40, card="naïve 한국어 カタカナー ไทย العربية 𠮷野家 Straße ½")
    kept = SearchText.objects.get(listing__slug="odd").terms.split()

    assert len(kept) > 20
    with connection.cursor() as cursor:
        for term in kept:
            expression = finding.engine().term(term, is_prefix=False)
            cursor.execute(f"{finding.engine().sql('e.listing_id')} LIMIT 9", [expression])
            assert Listing.objects.get(slug="odd").pk in [row[0] for row in cursor.fetchall()], term


# ---------------------------------------------------------------- cost


@pytest.mark.parametrize("query", [{}, {"q": "gpt"}, {"q": "gpt", "facts": ["use/chat", "free"]}, {"facts": ["use/chat"], "sort": "name"}])
def test_a_page_with_its_counts_costs_the_same_however_many(base: Version, query: dict, django_assert_num_queries: object) -> None:
    listed(base, "gpt-first", use_cases=["chat", "write"])
    words, facts = bool(query.get("q")), query.get("facts", [])
    looked_up = 5 if words else 2 if facts else 1  # the whole name, the head, three places; or the walk, and whether it is all
    counted = len(facts) * (2 if words else 1) + (0 if words or facts else 1)
    expected = 1 + looked_up + 3 + counted

    for more in (0, 12):
        for number in range(more):
            listed(base, f"gpt-{number}", use_cases=["chat", "write"])
        with django_assert_num_queries(expected):  # type: ignore[operator]
            found = search.find(**query)
            for listing in found.page().listings:
                assert listing.text("en").name
                assert listing.publisher.slug
                assert list(listing.use_cases.all())
                assert listing.current_version.base is None or listing.current_version.base.listing.publisher.slug
            assert found.total.number
            for fact in facts:
                assert found.counts("use/", fact)


def test_writing_many_costs_as_many_queries_as_writing_one(base: Version, django_assert_num_queries: object) -> None:
    pks = [listed(base, f"gpt-{number}").pk for number in range(9)]
    documents.write(pks)

    for some in (pks[:1], pks):
        with django_assert_num_queries(14):  # type: ignore[operator]
            documents.write(some)


def test_terms_of_runs() -> None:
    assert terms.index_terms("摘要工具 AI 工具") == ["摘要", "要工", "工具", "具", "ai"]
    assert list(terms.runs("a_b・ー―x")) == ["a", "b", "ー", "x"]
    assert terms.fact("licence", "GPL 3 'or later'") == "licence/GPL-3-or-later-"


# ---------------------------------------------------------------- the head of a large catalogue


@pytest.fixture
def large(base: Version, monkeypatch: pytest.MonkeyPatch) -> list[Listing]:
    """Six listings, the later the better, of which the index of words gives two at most; the head has the best three."""
    listed_ones = [listed(base, f"gpt-{number}", use_cases=["write"]) for number in range(6)]
    for number, listing in enumerate(listed_ones):
        SearchEntry.objects.filter(listing=listing).update(rank=0.5 + number / 20)
    monkeypatch.setattr(finding, "CANDIDATES", 2)
    monkeypatch.setattr(finding, "ENOUGH", 3)
    monkeypatch.setattr(finding, "READ", 0)
    monkeypatch.setattr(heading, "HEAD", 3)
    monkeypatch.setattr(heading, "SLACK", 0)
    monkeypatch.setattr(heading, "LARGE", 7)
    assert heading.choose() == 3
    return listed_ones


def test_the_best_of_many_are_found_in_the_head(large: list[Listing]) -> None:
    found = search.find(q="does")
    page = found.page(size=2)

    assert [listing.slug for listing in page.listings] == ["gpt-5", "gpt-4"]
    assert (found.total.number, found.total.has_more) == (3, True)


def test_further_pages_go_on_behind_the_head(large: list[Listing], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "CANDIDATES", 9)
    found = search.find(q="does")
    first = found.page(size=2)
    assert found.total == finding.Count(3, is_least=True)  # enough, though there is room for the others

    behind = search.find(q="does", after=first.next)

    assert [listing.slug for listing in behind.page().listings] == ["gpt-3", "gpt-2", "gpt-1", "gpt-0"]
    assert behind.total == finding.Count(6)


def test_what_the_head_lacks_is_found_all_the_same(large: list[Listing]) -> None:
    assert names("gpt-0")[0] == "gpt-0"
    assert [listing.slug for listing in search.find(q="gpt").best_named(5)][:3] == ["gpt-5", "gpt-4", "gpt-3"]


def test_the_head_follows_ranks_words_and_suspensions(large: list[Listing], base: Version) -> None:
    SearchEntry.objects.filter(listing=large[0]).update(rank=0.9)
    SearchEntry.objects.filter(listing=large[5]).update(rank=0.1)

    assert heading.choose() == 1
    assert [listing.slug for listing in search.find(q="does").page().listings] == ["gpt-0", "gpt-4", "gpt-3"]
    assert heading.choose() == 0

    SearchHead.objects.update(terms=" letter ")
    search.refresh(large[4])
    assert SearchHead.objects.get(listing=large[4]).terms == SearchText.objects.get(listing=large[4]).terms
    listings.suspend(large[4])
    assert "gpt-4" not in names("gpt")


def test_a_small_catalogue_has_no_head(large: list[Listing], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heading, "LARGE", 8)

    assert heading.choose() == 0
    assert not SearchHead.objects.exists()
