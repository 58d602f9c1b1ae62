"""Guessing what a stream says next from what stands in it already, so that one step can check several tokens at once.

What is summarised, corrected or quoted repeats its prompt, and a step of a few rows costs little more than a step of one. The guess
is what followed the last occurrence of the newest tokens (prompt look-up decoding, Saxena, 2023). It changes no answer: a guessed
token is kept only where it is the one that the sampler draws from the model's own logits there.
"""

from __future__ import annotations

from collections.abc import Sequence

SIZES = (3, 2)  # of the runs of tokens that are looked up, the longest first
FIRST_LENGTH = 4
LONGEST_PAUSE = 64


class Drafts:
    """The guesses for one sequence, whose tokens only ever grow. Guesses that fail become short, and seldom."""

    def __init__(self, most: int) -> None:
        """`most` tokens are guessed at once; 0: none."""
        self._most = most
        self._length = min(FIRST_LENGTH, most)
        self._pause = 0  # steps without a guess to come
        self._misses = 0  # in a row
        self._read = 0
        self._behind: dict[tuple[int, ...], int] = {}  # run of tokens -> where the token behind its last occurrence stands

    def propose(self, tokens: Sequence[int], limit: int) -> list[int]:
        """At most `limit` tokens that may follow."""
        if self._pause or not self._most:
            self._pause = max(self._pause - 1, 0)
            return []
        self._look_at(tokens)
        at = next((at for size in SIZES if (at := self._behind.get(tuple(tokens[-size:])))), None)
        if at is None:
            return []
        draft: list[int] = []
        for place in range(at, at + min(self._length, limit)):
            draft.append(tokens[place] if place < len(tokens) else draft[place - len(tokens)])
        return draft

    def judge(self, drafted: int, kept: int) -> None:
        """Learns how many tokens of a guess were right."""
        if kept:
            self._misses = 0
            self._length = min(2 * self._length if kept == drafted else kept + 1, self._most)
        else:
            self._misses += 1
            self._length = min(2, self._most)
            self._pause = min(2**self._misses, LONGEST_PAUSE)

    def _look_at(self, tokens: Sequence[int]) -> None:
        """Reads on up to the last token, behind which nothing stands yet."""
        for place in range(self._read, len(tokens)):
            for size in SIZES:
                if place >= size:
                    self._behind[tuple(tokens[place - size : place])] = place
        self._read = len(tokens)
