"""From a search to its page: candidates by their terms, scores, facets with counts, and pages by position.

A search with neither words nor filters walks the index of its order, at any depth. Every other takes the listings that match, at
most CANDIDATES for each place the words may stand in, and orders them by themselves. When more match than that, the first
HEAD of the catalogue in the wanted order are looked through as well, so that the top of the list is right; what
follows is then some of the rest, and every count is a least one. So nothing costs more than a fixed amount, however many
listings there are.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from django.db import connection
from django.db.models import Q, QuerySet
from django.utils.translation import get_language

from store.catalog.models import Listing, SearchEntry
from store.catalog.search import documents, ranking, terms
from store.catalog.search.engines import ENTRY, engine, known
from store.catalog.search.questions import Group, Question, understand
from store.catalog.search.synonyms import Synonyms

CANDIDATES = 2_000  # enough to show "1,000+"; with 10,000 a million listings cost five times as much to filter
COUNTED = 1_000  # beyond it a count is shown as "1,000+"
HEAD = 1_000
PART = 1_000  # candidates for each word where nothing holds all of them
MAX_CHARS = 200  # of a question

# How a list can be ordered: the column, and whether its highest values come first. "best" is by score where words are searched for.
SORTS = {
    "best": ("rank", True),
    "popular": ("heat", True),
    "rating": ("rating", True),
    "new": ("published", True),
    "price": ("price", False),
    "name": ("name", False),
}


@dataclass(frozen=True)
class Search:
    q: str = ""
    facts: tuple[str, ...] = ()  # all of which must hold: "use/chat", "free"
    sort: str = "best"

    def without(self, fact: str) -> Search:
        return replace(self, facts=tuple(one for one in self.facts if one != fact))


@dataclass(frozen=True)
class Position:
    """Where a page ended: the last row's key and listing."""

    key: float | str
    listing_id: int

    def __str__(self) -> str:
        return f"{self.key!r}_{self.listing_id}" if isinstance(self.key, float) else f"{self.key}_{self.listing_id}"

    @classmethod
    def read(cls, text: str, sort: str) -> Position | None:
        """None for what no page ever said."""
        key, _underscore, listing = text.partition("_")
        if not (listing.isascii() and listing.isdecimal() and len(listing) < 19 and len(key) <= 240):
            return None
        if sort == "name":
            return cls(key, int(listing)) if key and all(char in "0123456789abcdef" for char in key) else None
        try:
            number = float(key)
        except ValueError:
            return None
        return cls(number, int(listing)) if math.isfinite(number) else None


@dataclass(frozen=True)
class Candidate:
    key: float | str
    listing_id: int
    facts: str


@dataclass(frozen=True)
class Count:
    """How many there are; `is_least` when there may be more than were counted."""

    number: int
    is_least: bool = False

    @property
    def shown(self) -> int:
        return min(self.number, COUNTED)

    @property
    def has_more(self) -> bool:
        return self.is_least or self.number > COUNTED


@dataclass(frozen=True)
class Page:
    listings: list[Listing]
    next: str  # the position to go on from; "" at the end


@dataclass(frozen=True)
class Counted:
    """How many candidates there are, and how many of them each fact holds for."""

    candidates: int
    is_least: bool
    facts: Counter[str]

    @classmethod
    def of(cls, groups: Iterable[tuple[str, int]], *, is_least: bool = False) -> Counted:
        """From how many candidates have the very same facts."""
        facts: Counter[str] = Counter()
        candidates = 0
        for text, number in groups:
            candidates += number
            for fact in text.split():
                facts[fact] += number
        return cls(candidates, is_least or candidates > CANDIDATES, facts)


@dataclass
class Found:
    """The answer to one search. Each part is looked up when it is asked for."""

    search: Search
    synonyms: Synonyms
    _counted: dict[Search, Counted] = field(default_factory=dict)

    # ---------------------------------------------------------------- words

    @cached_property
    def question(self) -> Question:
        return understand(self.search.q[:MAX_CHARS], self.synonyms, lambda words: known(words))

    # ---------------------------------------------------------------- pages

    def page(self, *, after: str = "", size: int = 20) -> Page:
        position = Position.read(after, self.search.sort) if after else None
        rows = self._walk(position, size + 1) if self._is_everything else self._after(position)[: size + 1]
        ids = [row.listing_id for row in rows[:size]]
        # What the index may not know yet (a suspension of this second) is never shown.
        loaded = {listing.pk: listing for listing in Listing.objects.listed().for_cards().filter(pk__in=ids)}
        for listing in loaded.values():
            if listing.current_version is not None:
                listing.current_version.listing = listing  # a version of this very listing: not to be looked up again
        last = rows[size - 1] if len(rows) > size else None
        position_text = str(Position(last.key, last.listing_id)) if last else ""
        return Page([loaded[pk] for pk in ids if pk in loaded], position_text)

    def best_named(self, limit: int) -> list[Listing]:
        """The best of those with all the words in their names; for suggestions."""
        best: dict[int, Candidate] = {}
        self._take(best, ranking.IN_NAME, terms.NAME)
        ids = [row.listing_id for row in sorted(best.values(), key=lambda row: (row.key, row.listing_id), reverse=True)[:limit]]
        listed = Listing.objects.listed().select_related("publisher", "live_revision", "current_version")
        loaded = {listing.pk: listing for listing in listed.filter(pk__in=ids).prefetch_related("live_revision__texts")}
        return [loaded[pk] for pk in ids if pk in loaded]

    @property
    def _is_everything(self) -> bool:
        return not self.search.facts and not self.question.groups and not self.question.is_unreadable

    def _walk(self, position: Position | None, limit: int) -> list[Candidate]:
        column, is_falling = _order(self.search.sort)
        rows: QuerySet[SearchEntry] = SearchEntry.objects.filter(is_listed=True)
        if position is not None:
            beyond = "lt" if is_falling else "gt"
            rows = rows.filter(**{f"{column}__{'lte' if is_falling else 'gte'}": position.key})
            rows = rows.filter(~Q(**{column: position.key}) | Q(**{f"listing__{beyond}": position.listing_id}))
        sign = "-" if is_falling else ""
        values = rows.order_by(f"{sign}{column}", f"{sign}listing").values_list(column, "listing", "facts")[:limit]
        return [Candidate(*row) for row in values]

    def _after(self, position: Position | None) -> list[Candidate]:
        if position is None:
            return self._ordered
        is_falling = _order(self.search.sort)[1]
        mark = (position.key, position.listing_id)
        if is_falling:
            return [row for row in self._ordered if (row.key, row.listing_id) < mark]
        return [row for row in self._ordered if (row.key, row.listing_id) > mark]

    @cached_property
    def _ordered(self) -> list[Candidate]:
        is_falling = _order(self.search.sort)[1]
        return sorted(self._candidates, key=lambda row: (row.key, row.listing_id), reverse=is_falling)

    @cached_property
    def _candidates(self) -> list[Candidate]:
        """Every listing once, at its best place."""
        if self.question.is_unreadable:
            return []
        best: dict[int, Candidate] = {}
        for text, mark in self._places():
            self._is_cut = self._take(best, text, mark)
            if self._is_cut:
                break
        if not best and len(self.question.groups) > 1:
            self._is_in_part = True
            for candidate in self._in_part():
                best[candidate.listing_id] = candidate
        return list(best.values())

    _is_cut: bool = False
    _is_in_part: bool = False

    @property
    def is_in_part(self) -> bool:
        """Whether no listing holds all the words, and those are shown that hold some."""
        return bool(self._candidates) and self._is_in_part

    def _places(self) -> list[tuple[float, str]]:
        if not self.question.groups:
            return [(0.0, terms.BODY)]
        return [(ranking.IN_NAME, terms.NAME), (ranking.IN_LEAD, terms.LEAD), (ranking.ANYWHERE, terms.BODY)]

    def _take(self, best: dict[int, Candidate], text: float, mark: str) -> bool:
        """Adds the listings that match there; whether there were more than could be taken."""
        expression = engine().expression(self.question.groups, self.search.facts, mark=mark)
        if not expression:
            return False
        rows = self._fetch(expression, CANDIDATES + 1)
        is_cut = len(rows) > CANDIDATES
        if is_cut:
            rows = [*self._head(mark), *rows[:CANDIDATES]]
        whole = self._named_exactly() if mark == terms.NAME and rows else set()
        for listing_id, key, rank, facts in rows:
            if listing_id not in best:
                fit = ranking.EXACT if listing_id in whole else text
                best[listing_id] = Candidate(self._key(key, rank, fit), listing_id, facts)
        return is_cut

    def _key(self, key: float | str, rank: float, text: float) -> float | str:
        by_score = self.search.sort == "best" and self.question.groups
        return round(ranking.score_of(text, rank), 6) if by_score else key

    def _named_exactly(self) -> set[int]:
        return {row[0] for row in self._fetch(engine().term(documents.whole_name(self.search.q), is_prefix=False), CANDIDATES)}

    def _fetch(self, expression: str, limit: int) -> list[tuple[Any, ...]]:
        column = _order(self.search.sort)[0]
        sql = engine().sql(f"e.listing_id, e.{column}, e.rank, e.facts")
        return _rows(f"{sql} AND e.is_listed LIMIT {limit}", [expression])

    def _head(self, mark: str) -> list[tuple[Any, ...]]:
        """What matches of the first HEAD listings in the wanted order, looked at one by one."""
        column, is_falling = _order(self.search.sort)
        sign = "-" if is_falling else ""
        first = SearchEntry.objects.filter(is_listed=True).order_by(f"{sign}{column}", f"{sign}listing").values("listing")[:HEAD]
        matching = SearchEntry.objects.filter(listing__in=first)
        for fact in self.search.facts:
            matching = matching.filter(facts__contains=f" {fact} ")
        for group in self.question.groups:
            matching = matching.filter(_contains(group, mark))
        return list(matching.values_list("listing", column, "rank", "facts"))

    def _in_part(self) -> Iterable[Candidate]:
        """Listings that hold some of the words, by how many: one query for all of them."""
        found = engine()
        column = _order(self.search.sort)[0]
        one = f"SELECT * FROM ({found.sql(f'e.listing_id, e.{column}, e.rank, e.facts')} AND e.is_listed LIMIT {PART}) part"
        expressions = [found.expression([group], self.search.facts, mark=terms.LEAD) for group in self.question.groups]
        held: Counter[int] = Counter()
        rows = {}
        parts = _rows(" UNION ALL ".join([one] * len(expressions)), expressions)
        self._is_cut = len(parts) >= PART  # one word may have had more
        for row in parts:
            held[row[0]] += 1
            rows[row[0]] = row
        for listing_id, key, rank, facts in rows.values():
            text = ranking.IN_PART * held[listing_id] / len(expressions)
            yield Candidate(self._key(key, rank, text), listing_id, facts)

    # ---------------------------------------------------------------- counts

    @property
    def total(self) -> Count:
        counted = self._counts(self.search)
        return Count(counted.candidates, counted.is_least)

    def counts(self, prefix: str, chosen: str = "") -> dict[str, Count]:
        """Each fact that begins with `prefix` and how many would be left with it in place of `chosen`."""
        counted = self._counts(self.search.without(chosen) if chosen else self.search)
        return {fact: Count(number, counted.is_least) for fact, number in counted.facts.items() if fact.startswith(prefix)}

    def _counts(self, search: Search) -> Counted:
        if search not in self._counted:
            self._counted[search] = self._count(search)
        return self._counted[search]

    def _count(self, search: Search) -> Counted:
        if search == self.search and not self._is_everything:
            groups: Iterable[tuple[str, int]] = Counter(row.facts for row in self._candidates).items()
            return Counted.of(groups, is_least=self._is_cut)
        if self.question.is_unreadable:
            return Counted.of([])
        if not search.facts and not self.question.groups:
            inner, parameters = f"SELECT facts FROM {ENTRY} WHERE is_listed ORDER BY rank DESC, listing_id DESC LIMIT %s", []
        else:
            inner = f"{engine().sql('e.facts')} AND e.is_listed LIMIT %s"
            parameters = [engine().expression(self.question.groups, search.facts)]
        rows = _rows(f"SELECT facts, COUNT(*) FROM ({inner}) counted GROUP BY facts", [*parameters, CANDIDATES + 1])
        return Counted.of([(facts, number) for facts, number in rows])


def is_position(text: str, sort: str) -> bool:
    """Whether a page of this order can have ended there."""
    return Position.read(text, sort) is not None


def anywhere(q: str, limit: int = 1000) -> list[int]:
    """Listings that hold all the words, drafts too; for those who may see them all."""
    question = understand(q[:MAX_CHARS], Synonyms(), lambda words: set(words))
    if not question.groups:
        return []
    return [row[0] for row in _rows(f"{engine().sql('e.listing_id')} LIMIT {limit}", [engine().expression(question.groups)])]


def _order(sort: str) -> tuple[str, bool]:
    column, is_falling = SORTS[sort]
    if column == "name":
        column = "name_zh" if (get_language() or "").startswith("zh") else "name_en"
    return column, is_falling


def _contains(group: Group, mark: str) -> Q:
    """The group as conditions on the kept terms, for the few listings that are looked at one by one."""
    some = Q(pk__in=[])
    for alternative in group:
        if alternative.fact:
            some |= Q(facts__contains=f" {alternative.fact} ") if mark != terms.NAME else Q(pk__in=[])
            continue
        every = Q()
        for term in alternative.terms:
            every &= Q(listing__search_text__terms__contains=f" {mark}{term.text}{'' if term.is_prefix else ' '}")
        some |= every
    return some


def _rows(sql: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return list(cursor.fetchall())
