"""Which texts are the same as an earlier one but for case and spaces, or nearly: by their words alone, without regard to signs.

Two texts are nearly the same when at least four of five of all their runs of three words stand in both (the Jaccard index of their
shingles). Kept of each text are the smallest of its shingles' hashes, from which the index is known exactly for texts of up to about
KEPT words and within about 0.07 for longer ones (Broder, 1997, "On the resemblance and containment of documents"). A text is
compared with the last one that had the same hash as one of its INDEXED smallest, so a copy is missed only where other texts share all of
those too.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from array import array

SHINGLE = 3  # words
NEAR = 0.8
KEPT, INDEXED = 32, 8
# Where no spaces part the words, every sign is one: Chinese and Japanese.
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]|[^\W_\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+")


def _sketch(normal: str) -> array[int]:
    """The smallest hashes of the shingles, in order."""
    words = WORD.findall(normal)
    shingles = {" ".join(words[at : at + SHINGLE]) for at in range(max(len(words) - SHINGLE + 1, 1))}
    hashes = [int.from_bytes(hashlib.blake2b(shingle.encode(), digest_size=8).digest(), "little") for shingle in shingles]
    return array("Q", sorted(hashes)[:KEPT])


def _resemblance(one: array[int], other: array[int]) -> float:
    """The Jaccard index by two sketches: how many of the smallest hashes of both together are in both."""
    mine, theirs = set(one), set(other)
    smallest = sorted(mine | theirs)[:KEPT]
    return len((mine & theirs).intersection(smallest)) / len(smallest)


class Copies:
    """Texts read one after the other, numbered from 0: of each, what it says exactly and the group of those it is nearly like."""

    def __init__(self) -> None:
        self.exact: list[bytes] = []
        self.groups: list[int] = []
        self.near_count = 0  # texts nearly like an earlier one, and not the same
        self._sketches: list[array[int]] = []
        self._first: dict[bytes, int] = {}
        self._indexed: dict[int, int] = {}

    def read(self, text: str) -> None:
        normal, number = " ".join(unicodedata.normalize("NFKC", text).casefold().split()), len(self.exact)
        key = hashlib.blake2b(normal.encode(), digest_size=16).digest()
        self.exact.append(key)
        if (same := self._first.setdefault(key, number)) != number:
            self.groups.append(self.groups[same])
            self._sketches.append(self._sketches[same])
            return
        sketch = _sketch(normal)
        like = self._like(sketch)
        self.near_count += like is not None
        self.groups.append(number if like is None else self.groups[like])
        self._sketches.append(sketch)
        self._indexed |= dict.fromkeys(sketch[:INDEXED], number)

    def _like(self, sketch: array[int]) -> int | None:
        met = sorted({self._indexed[found] for found in sketch[:INDEXED] if found in self._indexed})
        return next((number for number in met if _resemblance(sketch, self._sketches[number]) >= NEAR), None)
