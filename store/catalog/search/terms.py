"""The one normalised form of words, in which texts are kept and questions are asked.

NFKC and case-folded; each word of a script with spaces is a term, without accents; each run of Chinese, Japanese or Korean
characters is its overlapping pairs and its last character. So every word and every character of a run begins some term, and
a question finds what it is a beginning of. A mark before a term says where in the listing it stands.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator

NAME, LEAD, BODY = "^", "~", ""  # in a name; there or in summary, use cases, publisher and tags; anywhere
FILTER = ":"  # a fact to filter by, not a word
MAX_WORD_CHARS = 40

_CJK = "\u3005\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\U00020000-\U0002ffff"
_RUNS = re.compile(f"[{_CJK}]+|[^\\W_{_CJK}]+")
_IS_CJK = re.compile(f"[{_CJK}]")
_UNFIT = re.compile(r"[^A-Za-z0-9./+-]+")


def runs(text: str) -> Iterator[str]:
    """The words and the CJK runs of `text`, normalised, in their order."""
    for run in _RUNS.findall(unicodedata.normalize("NFKC", text).casefold()):
        if is_cjk(run):
            yield run
        elif word := plain(run):
            yield word


def plain(word: str) -> str:
    """A word without accents, and no longer than a term may be."""
    if word.isascii():
        return word[:MAX_WORD_CHARS]
    decomposed = unicodedata.normalize("NFKD", word)
    return "".join(_RUNS.findall("".join(char for char in decomposed if not unicodedata.combining(char))))[:MAX_WORD_CHARS]


def is_cjk(run: str) -> bool:
    return not run.isascii() and _IS_CJK.match(run) is not None


def pairs(run: str) -> list[str]:
    """Of `摘要工具`: `摘要 要工 工具`; a single character stands for itself."""
    return [run[i : i + 2] for i in range(len(run) - 1)] or [run]


def index_terms(text: str) -> list[str]:
    """The terms under which `text` is found; the same one twice counts once."""
    terms: dict[str, None] = {}
    for run in runs(text):
        if is_cjk(run):
            terms |= dict.fromkeys([*pairs(run), run[-1]])
        else:
            terms[run] = None
    return list(terms)


def marked(mark: str, terms: Iterable[str]) -> list[str]:
    return [f"{mark}{term}" for term in terms]


def fact(name: str, value: str = "") -> str:
    """A fact to filter by, as one term: `use/chat`, `free`. What can't stand in a term becomes a hyphen."""
    return f"{name}/{_UNFIT.sub('-', value)[:80]}" if value else name


def sort_key(name: str) -> str:
    """The name as text whose order is that of its normalised characters under every collation: hexadecimal UTF-8."""
    return unicodedata.normalize("NFKC", name).casefold()[:30].encode().hex()
