"""From a search to its page: candidates by their terms, scores, facets with counts, and pages by position.

A search with neither words nor filters walks the index of its order, at any depth. Every other takes the listings that match, at
most CANDIDATES for each place the words may stand in, and orders them by themselves. When more match than that, the top of the list
is right all the same, since the best are looked for first: words in the head of the catalogue (`heading`), filters in the first
WALKED of the wanted order. In a large catalogue ENOUGH of these end the look for a first page. What follows is then some of the
rest, and every count is a least one. So nothing costs more than a fixed amount, however many listings there are.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

from django.db import connection
from django.db.models import Q, QuerySet
from django.utils.translation import get_language

from store.catalog.models import Listing, SearchEntry
from store.catalog.search import documents, ranking, terms
from store.catalog.search.engines import ENTRY, engine, known
from store.catalog.search.questions import Alternative, Group, Question, Term, understand
from store.catalog.search.synonyms import Synonyms

CANDIDATES = 1_000  # enough to show "1,000+"; with 10,000 a million listings cost ten times as much to filter
COUNTED = 1_000  # beyond it a count is shown as "1,000+"
WALKED = 4_000  # of the wanted order, by their facts
ENOUGH = 120  # of the best are enough in a large catalogue, for the first page and to count by: "120+"; the largest page has 100
READ = 1_000  # of the wanted order, by their words, where the head does not know them
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
    after: str = ""  # the position at which the page before ended

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


Row = tuple[int, Any, float, str]  # listing, key of the order, rank, facts
_PLACES = ((ranking.IN_NAME, terms.NAME), (ranking.IN_LEAD, terms.LEAD), (ranking.ANYWHERE, terms.BODY))


class Candidate(NamedTuple):
    """Ordered as it stands: by key, then by listing."""

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
    def of(cls, facts: Sequence[str], *, is_least: bool) -> Counted:
        """From the facts of each candidate."""
        return cls(len(facts), is_least, Counter(" ".join(facts).split()))


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

    def page(self, *, size: int = 20) -> Page:
        position = Position.read(self.search.after, self.search.sort) if self.search.after else None
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
        if self.question.groups:
            self._add(best, ranking.EXACT, self._fetch(self._whole_name, CANDIDATES))
            expression = self._expression(terms.NAME)
            for _text, rows in self._fetch_head([(ranking.IN_NAME, expression)], limit):
                self._add(best, ranking.IN_NAME, rows)
            if len(best) < limit:
                self._add(best, ranking.IN_NAME, self._fetch(expression, CANDIDATES))
        ids = [row.listing_id for row in sorted(best.values(), reverse=True)[:limit]]
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
            return [row for row in self._ordered if row[:2] < mark]
        return [row for row in self._ordered if row[:2] > mark]

    @cached_property
    def _ordered(self) -> list[Candidate]:
        is_falling = _order(self.search.sort)[1]
        return sorted(self._candidates, reverse=is_falling)

    @cached_property
    def _candidates(self) -> list[Candidate]:
        """Every listing once, at its best place."""
        if self.question.is_unreadable:
            return []
        if not self.question.groups:
            return [Candidate(key, listing_id, facts) for listing_id, key, _rank, facts in self._by_facts()]
        best = self._by_score() if self.search.sort == "best" else self._by_words()
        if not best and len(self.question.groups) > 1:
            self._is_in_part = True
            for candidate in self._in_part():
                best[candidate.listing_id] = candidate
        return list(best.values())

    @property
    def _enough(self) -> int:
        """How many of the best end the look in a large catalogue; behind the first page nothing but the cap does."""
        return CANDIDATES + 1 if self.search.after else ENOUGH

    _is_cut: bool = False
    _is_in_part: bool = False

    @property
    def is_in_part(self) -> bool:
        """Whether no listing holds all the words, and those are shown that hold some."""
        return bool(self._candidates) and self._is_in_part

    def _by_facts(self) -> list[Row]:
        """Those that match of the first of the wanted order, and others where they are too few."""
        first = self._walked(self.search.facts, self.search.sort)
        if len(first) > CANDIDATES or not self._is_large:
            self._is_cut = len(first) > CANDIDATES
            return first
        if len(first) >= self._enough:
            self._is_cut = True
            return first
        others = self._fetch(self._expression(), CANDIDATES + 1)
        self._is_cut = len(others) > CANDIDATES
        return list({row[0]: row for row in [*first, *others]}.values())

    def _by_words(self) -> dict[int, Candidate]:
        """In an order to which the place of the words says nothing."""
        rows = self._fetch(self._expression(), CANDIDATES + 1)
        self._is_cut = len(rows) > CANDIDATES
        best: dict[int, Candidate] = {}
        self._add(best, 0.0, [*(self._read_through(terms.BODY) if self._is_cut else []), *rows])
        return best

    def _by_score(self) -> dict[int, Candidate]:
        best: dict[int, Candidate] = {}
        self._add(best, ranking.EXACT, self._fetch(self._whole_name, CANDIDATES))
        of_head = dict(self._fetch_head([(text, self._expression(mark)) for text, mark in _PLACES], CANDIDATES + 1))
        sure = set(best)
        for text, mark in _PLACES:
            self._add(best, text, of_head.get(text, []))
            # Of what is not in the head nothing ranks higher, so the best are these where the place has enough of them.
            sure.update(row[0] for row in of_head.get(text, []))
            self._is_cut = self._is_cut or (bool(of_head) and len(sure) >= self._enough)
            if not self._is_cut:
                rows = self._fetch(self._expression(mark), CANDIDATES + 1)
                self._is_cut = len(rows) > CANDIDATES
                self._add(best, text, [*(self._read_through(mark) if self._is_cut and not of_head else []), *rows])
        return best

    def _add(self, best: dict[int, Candidate], text: float, rows: Iterable[Row]) -> None:
        by_score = self.search.sort == "best"
        for listing_id, key, rank, facts in rows:
            if listing_id not in best:
                best[listing_id] = Candidate(_score(text, rank) if by_score else key, listing_id, facts)

    # ---------------------------------------------------------------- rows of the database

    def _expression(self, mark: str = terms.BODY) -> str:
        return engine().expression(self.question.groups, self.search.facts, mark=mark)

    @property
    def _whole_name(self) -> str:
        return engine().expression([_exactly(documents.whole_name(self.search.q))], self.search.facts)

    @property
    def _columns(self) -> str:
        return f"e.listing_id, e.{_order(self.search.sort)[0]}, e.rank, e.facts"

    def _fetch(self, expression: str, limit: int) -> list[Row]:
        return _rows(f"{engine().sql(self._columns)} AND e.is_listed LIMIT {limit}", [expression]) if expression else []

    def _fetch_head(self, expressions: Sequence[tuple[float, str]], limit: int) -> list[tuple[float, list[Row]]]:
        """For each of them that can be met, with what belongs to it, what matches of the head. One query."""
        asked = [(text, expression) for text, expression in expressions if expression]
        one = f"SELECT %s, part.* FROM ({engine().head_sql(self._columns)} AND e.is_listed) part"
        parameters = [value for at, (_text, expression) in enumerate(asked) for value in (at, expression, limit)]
        rows = _rows(" UNION ALL ".join([one] * len(asked)), parameters) if asked else []
        return [(text, found) for at, (text, _expression) in enumerate(asked) if (found := [row[1:] for row in rows if row[0] == at])]

    def _walked(self, facts: Sequence[str], sort: str) -> list[Row]:
        """What matches of the first WALKED listings in that order, at most CANDIDATES and one."""
        column, is_falling = _order(sort)
        down = "DESC" if is_falling else "ASC"
        order = f"ORDER BY {column} {down}, listing_id {down}"
        first = f"SELECT listing_id, {column}, rank, facts FROM {ENTRY} WHERE is_listed {order} LIMIT {WALKED}"
        holds = " AND ".join(["facts LIKE %s"] * len(facts)) or "TRUE"
        return _rows(f"SELECT * FROM ({first}) walked WHERE {holds} LIMIT {CANDIDATES + 1}", [f"% {fact} %" for fact in facts])

    def _read_through(self, mark: str) -> list[Row]:
        """What matches of the first READ listings in the wanted order, looked at one by one."""
        column, is_falling = _order(self.search.sort)
        sign = "-" if is_falling else ""
        first = SearchEntry.objects.filter(is_listed=True).order_by(f"{sign}{column}", f"{sign}listing").values("listing")[:READ]
        matching = SearchEntry.objects.filter(listing__in=first)
        for fact in self.search.facts:
            matching = matching.filter(facts__contains=f" {fact} ")
        for group in self.question.groups:
            matching = matching.filter(_contains(group, mark))
        return list(matching.values_list("listing", column, "rank", "facts"))

    def _in_part(self) -> Iterable[Candidate]:
        """Listings that hold some of the words, by how many: one query for all of them."""
        found = engine()
        one = f"SELECT * FROM ({found.sql(self._columns)} AND e.is_listed LIMIT {PART}) part"
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
            yield Candidate(_score(text, rank) if self.search.sort == "best" else key, listing_id, facts)

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
            return Counted.of([row.facts for row in self._candidates], is_least=self._is_cut)
        if self.question.is_unreadable:
            return Counted.of([], is_least=False)
        some, is_least = self._sample(search)
        return Counted.of(some, is_least=is_least)

    def _sample(self, search: Search) -> tuple[list[str], bool]:
        """The facts of those that match, and whether there may be more: of the best alone where they are enough to count by."""
        expression = engine().expression(self.question.groups, search.facts)
        if self.question.groups:
            best = [row[0] for row in _rows(f"{engine().head_sql('e.facts')} AND e.is_listed", [expression, CANDIDATES + 1])]
        else:
            best = [row[3] for row in self._walked(search.facts, "best")]
            if not search.facts or len(best) > CANDIDATES or not self._is_large:
                return best, len(best) > CANDIDATES
        if len(best) >= ENOUGH:
            return best, True
        every = [row[0] for row in _rows(f"{engine().sql('e.facts')} AND e.is_listed LIMIT {CANDIDATES + 1}", [expression])]
        return every, len(every) > CANDIDATES

    @cached_property
    def _is_large(self) -> bool:
        """Whether there are listings beyond those that are walked."""
        return SearchEntry.objects.filter(is_listed=True)[WALKED : WALKED + 1].exists()


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


def _score(text: float, rank: float) -> float:
    return round(ranking.score_of(text, rank), 6)


def _exactly(term: str) -> Group:
    return (Alternative((Term(term, is_prefix=False),)),)


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
