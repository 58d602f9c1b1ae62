"""What was probably meant by a word that no listing has: the words of names and summaries within one edit of it.

Every word is kept under itself and under itself without each one of its characters. Two words within one edit (a character
more, less, another one, or two neighbours swapped) share such a form, so they are found by equality in any database
(Garbe's symmetric deletes). Scripts with spaces only: in Chinese each character is a word's part, not its spelling.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from store.catalog.models import Spelling
from store.catalog.search import terms

SHORTEST, LONGEST = 4, 20  # characters of words that are mended
LIKELY = 5  # words at most that one misspelt word may mean
NEAR = 15  # of which it is looked up whether a visitor may read them


def forms(word: str) -> set[str]:
    return {word} | {word[:i] + word[i + 1 :] for i in range(len(word))}


def can_be_mended(word: str) -> bool:
    return SHORTEST <= len(word) <= LONGEST and word.isalpha() and not terms.is_cjk(word)


def learn(words: Iterable[str]) -> None:
    """Keeps the words that are new. Those of drafts too, and they stay when their listing goes: who may read them is asked each time."""
    wanted = {word for word in words if can_be_mended(word)}
    known = set(Spelling.objects.filter(form__in=wanted, word__in=wanted).values_list("word", flat=True)) if wanted else set()
    new = [Spelling(form=form, word=word) for word in sorted(wanted - known) for form in forms(word)]
    Spelling.objects.bulk_create(new, ignore_conflicts=True, batch_size=1000)


def meant_by(words: Iterable[str], is_known: Callable[[list[str]], set[str]]) -> dict[str, list[str]]:
    """For each word the ones within one edit that `is_known` says somebody may find, likeliest first: those that begin alike, then
    those of its length. One query, and one of `is_known`.
    """
    wanted = {word: forms(word) for word in words if can_be_mended(word)}
    if not wanted:
        return {}
    every_form = set().union(*wanted.values())
    rows = list(Spelling.objects.filter(form__in=every_form).values_list("form", "word"))
    found: dict[str, list[str]] = {}
    for word, its_forms in wanted.items():
        near = {known for form, known in rows if form in its_forms and is_one_edit(word, known)}
        found[word] = sorted(near, key=lambda known: (known[0] != word[0], abs(len(known) - len(word)), known))[:NEAR]
    every = sorted({known for near in found.values() for known in near})
    readable = is_known(every) if every else set()
    return {word: [known for known in near if known in readable][:LIKELY] for word, near in found.items()}


def is_one_edit(one: str, other: str) -> bool:
    """Whether they differ by one character more, less or another, or by two neighbours that changed places."""
    if one == other or abs(len(one) - len(other)) > 1:
        return False
    start = 0
    while start < min(len(one), len(other)) and one[start] == other[start]:
        start += 1
    a, b = one[start:], other[start:]
    return a[1:] == b[1:] or a[1:] == b or a == b[1:] or (a[:2] == b[:2][::-1] and len(a) > 1 and a[2:] == b[2:])
