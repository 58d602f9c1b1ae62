"""Which scripts a text is written in, by its letters: a script is not a language, but it can be told without a guess."""

from __future__ import annotations

from collections import Counter

import numpy as np

# (first, last, script) of the blocks of Unicode's letters, https://www.unicode.org/Public/UNIDATA/Blocks.txt
BLOCKS = (
    (0x41, 0x5A, "latin"),
    (0x61, 0x7A, "latin"),
    (0xC0, 0xD6, "latin"),
    (0xD8, 0xF6, "latin"),
    (0xF8, 0x24F, "latin"),
    (0x370, 0x3FF, "greek"),
    (0x400, 0x52F, "cyrillic"),
    (0x531, 0x58A, "armenian"),
    (0x5D0, 0x5F4, "hebrew"),
    (0x620, 0x64A, "arabic"),
    (0x66E, 0x6D3, "arabic"),
    (0x750, 0x77F, "arabic"),
    (0x900, 0x963, "devanagari"),
    (0x980, 0x9E3, "bengali"),
    (0xB80, 0xBE5, "tamil"),
    (0xC00, 0xC65, "telugu"),
    (0xE01, 0xE4E, "thai"),
    (0x10A0, 0x10FF, "georgian"),
    (0x1100, 0x11FF, "hangul"),
    (0x1200, 0x135A, "ethiopic"),
    (0x1E00, 0x1EFF, "latin"),
    (0x1F00, 0x1FFF, "greek"),
    (0x3041, 0x30FF, "kana"),
    (0x3105, 0x312F, "bopomofo"),
    (0x3400, 0x4DBF, "han"),
    (0x4E00, 0x9FFF, "han"),
    (0xAC00, 0xD7A3, "hangul"),
    (0xF900, 0xFAFF, "han"),
    (0x20000, 0x323AF, "han"),
)
_EDGES = np.array([edge for first, last, _ in BLOCKS for edge in (first, last + 1)], dtype=np.uint32)


class Scripts:
    """Letters of each script. Digits, signs and scripts that BLOCKS does not name are left out."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def read(self, text: str) -> None:
        points = np.frombuffer(text.encode("utf-32-le", "replace"), dtype=np.uint32)
        within = np.bincount(np.searchsorted(_EDGES, points, side="right"), minlength=len(_EDGES) + 1)
        for at, (_first, _last, script) in enumerate(BLOCKS):
            if letters := int(within[2 * at + 1]):
                self._counts[script] += letters

    def to_json(self) -> dict[str, int]:
        """Script: letters, the most first."""
        return dict(self._counts.most_common())
