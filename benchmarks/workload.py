"""What is asked of every side: prompts of real text as token ids, the same for all sides of a run, new in every run."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

TEXT = Path(__file__).parent.parent / "inference" / "texts" / "english.txt"
STRIDE = 37  # tokens between the beginnings of two prompts


def text_tokens(folder: Path) -> list[int]:
    """The project's English text in the tokens of the model in `folder`."""
    from tokenizers import Tokenizer

    return list(Tokenizer.from_file(str(folder / "tokenizer.json")).encode(TEXT.read_text(encoding="utf-8")).ids)


class Prompts:
    """Stretches of the text, each beginning elsewhere, so that no prefix cache answers one; the text is a ring.

    Every side of a row has one of its own and they all say the same.
    """

    def __init__(self, tokens: Sequence[int]) -> None:
        size = len(tokens) - (len(tokens) % STRIDE == 0)  # no common factor: every beginning comes once before any comes again
        self._ring = list(tokens[:size])
        self._next = 0
        self.random = random.Random(0)

    def take(self, count: int, length: int) -> list[list[int]]:
        return [self.one(length) for _ in range(count)]

    def one(self, length: int) -> list[int]:
        start, size = self._next, len(self._ring)
        self._next = (start + STRIDE) % size
        return [self._ring[(start + at) % size] for at in range(length)]


def zipf(count: int, *, among: int, chooser: random.Random) -> list[int]:
    """`count` numbers below `among`, number k as often as 1 / (k + 1)."""
    return chooser.choices(range(among), weights=[1 / (rank + 1) for rank in range(among)], k=count)
