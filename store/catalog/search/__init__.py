"""Search that finds: Chinese and English, misspelt words, synonyms of use cases; ranked, counted and paged in bounded time.

terms      the normalised form of words        questions  what a person's words ask for (with synonyms and spelling)
documents  what is kept of a listing            heading    the best listings of a large catalogue once more
engines    PostgreSQL's and SQLite's ways       ranking    the formula
           to find terms                        finding    candidates, scores, facets, pages
"""

from __future__ import annotations

from collections.abc import Sequence

from store.catalog.models import UseCase
from store.catalog.search.documents import built_on, outdate, recheck, refresh, refresh_stale
from store.catalog.search.finding import COUNTED, SORTS, Count, Found, Page, Search, anywhere, is_position
from store.catalog.search.ranking import used, warm
from store.catalog.search.synonyms import Synonyms
from store.catalog.search.terms import fact

__all__ = [
    "COUNTED", "SORTS", "Count", "Found", "Page", "Search", "anywhere", "built_on", "fact", "find",
    "is_position", "outdate", "recheck", "refresh", "refresh_stale", "used", "warm",
]  # fmt: skip


def find(*, q: str = "", facts: Sequence[str] = (), sort: str = "best", after: str = "", use_cases: list[UseCase] | None = None) -> Found:
    """The listed GPTs that match all words and facts; behind the position `after`, the `next` of the page before. `use_cases`: all there
    are, when the caller has them anyway.
    """
    known = use_cases if use_cases is not None else list(UseCase.objects.order_by("position", "slug"))
    return Found(Search(q.strip(), tuple(dict.fromkeys(facts)), sort, after), Synonyms.of(known))
