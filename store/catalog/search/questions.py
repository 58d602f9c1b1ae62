"""What a person's words ask for: groups of alternatives, each of which a listing must hold.

Words that say nothing of the task are left out (`a GPT that can`, `帮我`). A word finds what it is the beginning of, and what its
stem is the beginning of (`emails` → `email…`). A synonym of a use case also finds all that serve that use case. A word that no
listing has is read as the known words within one edit of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from store.catalog.search import terms
from store.catalog.search.spelling import can_be_mended, meant_by
from store.catalog.search.synonyms import Synonyms

MAX_GROUPS = 12
_EMPTY = """
    a an and any are as at be but by can could do does for from get give gpt gpts have help helps i in into is it its like me model
    models my need of on or our please s some something that the their them this to tool up us use using want we what which will
    with without would you your
"""
EMPTY_WORDS = frozenset(_EMPTY.split())
_EMPTY_CJK = re.compile(
    "帮我|帮忙|帮助|请问|请|我想要|我想|我要|想要|一个|一下|能够|可以|给我|怎么|如何|用于|用来|适合|什么|哪个|哪些|的|把|将|吗|呢|我|能"
)
_SUFFIXES = ("izations", "isations", "ations", "ization", "isation", "ation", "ings", "ing", "ers", "er", "ies", "ed", "es", "s", "e")
_SHORTEST_STEM = 4


@dataclass(frozen=True)
class Term:
    text: str
    is_prefix: bool = True


@dataclass(frozen=True)
class Alternative:
    """Terms that must all be found; or one fact, which holds wherever it is looked for but in names."""

    terms: tuple[Term, ...] = ()
    fact: str = ""


Group = tuple[Alternative, ...]


@dataclass(frozen=True)
class Question:
    groups: tuple[Group, ...] = ()
    mended: dict[str, list[str]] = field(default_factory=dict)  # what was read for which word
    is_unreadable: bool = False  # signs were written, but no word among them


def understand(text: str, synonyms: Synonyms, is_known: Callable[[list[str]], set[str]]) -> Question:
    """`is_known` says of some words which ones begin a term of any listed GPT. At most three queries: two of it, one of the spelling."""
    runs = list(terms.runs(text))
    if not runs:
        return Question(is_unreadable=bool(text.strip()))
    telling = [run for run in runs if run not in EMPTY_WORDS] or runs
    unknown = [run for run in dict.fromkeys(telling) if can_be_mended(run) and not synonyms.slug_of([run])]
    known = is_known(unknown) if unknown else set()
    mended = {word: meant for word, meant in meant_by([run for run in unknown if run not in known], is_known).items() if meant}
    groups: list[Group] = []
    at = 0
    while at < len(telling):
        if terms.is_cjk(telling[at]):
            groups += _of_cjk(telling[at], synonyms)
            at += 1
            continue
        sizes = range(min(synonyms.longest, len(telling) - at), 0, -1)
        size = next((size for size in sizes if synonyms.slug_of(telling[at : at + size])), 0)
        words = telling[at : at + (size or 1)]
        fact = terms.fact("use", synonyms.slug_of(words)) if size else ""
        groups.append(_of_words(words, fact, mended.get(words[0], [])))
        at += len(words)
    return Question(tuple(dict.fromkeys(groups))[:MAX_GROUPS], mended)


def stem(word: str) -> str:
    """What its other forms begin with; the word itself when too little would be left."""
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= _SHORTEST_STEM:
            return word.removesuffix(suffix)
    return word


def _of_words(words: Iterable[str], fact: str, meant: list[str]) -> Group:
    whole = tuple(map(Term, words))
    alternatives = [Alternative(whole), *(Alternative((Term(stem(word)),)) for word in meant)]
    if len(whole) == 1 and (begun := stem(whole[0].text)) != whole[0].text:
        alternatives.append(Alternative((Term(begun),)))
    return (*alternatives, *([Alternative(fact=fact)] if fact else []))


def _of_cjk(run: str, synonyms: Synonyms) -> list[Group]:
    groups: list[Group] = []
    for telling in [part for part in _EMPTY_CJK.split(run) if part] or [run]:
        for piece, slug in synonyms.in_run(telling):
            whole = Alternative(tuple(map(Term, terms.pairs(piece))))
            if slug:
                groups.append((whole, Alternative(fact=terms.fact("use", slug))))
            else:
                groups += [(Alternative((term,)),) for term in whole.terms]
    return groups
