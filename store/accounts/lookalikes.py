"""Names that look like another's: skeletons after Unicode Technical Standard #39, and characters that nobody sees.

Two names whose skeletons are equal are read alike, whatever letters of whatever script they are written with.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from confusable_homoglyphs import confusables

MAX_CHARS = 200
# Direction overrides and isolates reorder what stands around them; the rest is not seen at all. Joiners belong to several scripts.
TURNING = frozenset(map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A))))
UNSEEN = frozenset("\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u3164\ufeff\uffa0")
UNSEEN |= frozenset(map(chr, (*range(0x2060, 0x2065), *range(0xFFF9, 0xFFFC), *range(0xE0000, 0xE0080))))


def is_seen_as_written(text: str) -> bool:
    """Whether a name holds nothing that hides, reorders, or piles up marks on one letter."""
    marks = 0
    for char in unicodedata.normalize("NFD", text):
        marks = marks + 1 if unicodedata.category(char) in ("Mn", "Me") else 0
        if char in TURNING or char in UNSEEN or marks > 4:
            return False
    return True


def skeletons(name: str) -> tuple[str, str]:
    """As it is written, and with its letters made small first: a capital I looks like an l, a small one does not."""
    name = name[:MAX_CHARS]
    return _skeleton(name), _skeleton(name.casefold())


def _skeleton(text: str) -> str:
    """Letters and digits alone, each by what it looks like, without accents, in small letters."""
    plain = (char for char in unicodedata.normalize("NFKD", text) if char.isalnum())
    return "".join(_prototypes().get(char, char) for char in plain).casefold().replace("vv", "w")[:MAX_CHARS]


@lru_cache(maxsize=1)
def _prototypes() -> dict[str, str]:
    """What each character is drawn like. The data name, for a character, its one prototype, and for a prototype all like it."""
    known: dict[str, list[dict[str, str]]] = confusables.confusables_data
    found = {}
    for char, alike in known.items():
        if len(char) == 1 and len(alike) == 1:
            other = alike[0]["c"]
            if len(known.get(other, ())) > 1 or len(other) > 1 or other < char:
                found[char] = "".join(part for part in unicodedata.normalize("NFKD", other) if part.isalnum()) or char
    return found
