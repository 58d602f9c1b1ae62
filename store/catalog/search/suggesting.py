"""What a person may be about to type: use cases, GPTs and publishers whose names hold words that begin so. Four queries."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import Exists, OuterRef

from store.accounts.models import Publisher
from store.catalog.models import Listing, SearchEntry, UseCase
from store.catalog.search import terms
from store.catalog.search.finding import Found, Search
from store.catalog.search.synonyms import Synonyms

LISTINGS, USE_CASES, PUBLISHERS = 5, 3, 2
MAX_CHARS = 60


@dataclass(frozen=True)
class Suggestions:
    use_cases: list[UseCase]
    listings: list[Listing]
    publishers: list[Publisher]


def suggest(typed: str) -> Suggestions:
    """The last word counts as begun, all others as written out. Nothing for no words."""
    words = list(terms.runs(typed[:MAX_CHARS]))
    if not words:
        return Suggestions([], [], [])
    use_cases = list(UseCase.objects.order_by("position", "slug"))
    listings = Found(Search(typed.strip()), Synonyms()).best_named(LISTINGS)
    return Suggestions(_use_cases(words, use_cases), listings, _publishers("-".join(words)))


def _use_cases(words: list[str], use_cases: list[UseCase]) -> list[UseCase]:
    begun = "".join(words)
    known = Synonyms.of(use_cases)
    phrases = [("".join(words), slug) for words, slug in known.words.items()] + list(known.runs.items())
    meant = {slug for phrase, slug in phrases if phrase.startswith(begun)}
    return [use_case for use_case in use_cases if use_case.slug in meant][:USE_CASES]


def _publishers(begun: str) -> list[Publisher]:
    """By the beginning of their name in addresses; only those with something to see."""
    shows = SearchEntry.objects.filter(listing__publisher=OuterRef("pk"), is_listed=True)
    matching = Publisher.objects.filter(Exists(shows), slug__startswith=begun)
    return list(matching.order_by("slug")[:PUBLISHERS])
