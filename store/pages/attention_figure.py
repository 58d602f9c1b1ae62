"""How tokens look at each other, as a drawing: the same tokens in two columns, and a line for each look, the firmer the longer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from inference.protocol import Attended
from store.pages.lineage import fitting

EXAMPLE = Path(__file__).parent / "attention_example.json"
SEEN = 0.01  # a look of less is not drawn
WIDTH, ROW, TOP = 344, 26, 20  # pixels, as all lengths here
LEFT_TEXT, LEFT_LINE, RIGHT_LINE, RIGHT_TEXT = 100, 108, 200, 208
TOKEN_WIDTH, TOKEN_EM = 92, 13.0
MADE_WITH = "python -m inference attention smollm2 '{text}' --layer {layer} --head {head} --dtype float32"


@dataclass(frozen=True)
class Look:
    """From one token to another."""

    token: str
    weight: float
    y: float
    width: float  # of its line

    @property
    def percent(self) -> str:
        return f"{self.weight:.0%}"


@dataclass(frozen=True)
class Row:
    """A token, and those that it looks at: in their order, `looks`; the longest first, `ranked`."""

    token: str
    shown: str
    y: float
    looks: tuple[Look, ...]

    @property
    def ranked(self) -> list[Look]:
        return sorted(self.looks, key=lambda look: -look.weight)

    @property
    def said(self) -> str:
        """For who hears the drawing."""
        return ", ".join(f"{look.token} {look.percent}" for look in self.ranked[:5])

    @property
    def top(self) -> float:
        return self.y - ROW / 2


@dataclass(frozen=True)
class Figure:
    rows: tuple[Row, ...]
    chosen: int  # the row that is shown before any other is pointed at
    text: str
    layer: int  # from 1, as people count
    head: int
    layers: int
    heads: int

    width, row_height = WIDTH, ROW
    left_text, left_line, right_line, right_text = LEFT_TEXT, LEFT_LINE, RIGHT_LINE, RIGHT_TEXT

    @property
    def height(self) -> int:
        return TOP + ROW * len(self.rows) + ROW // 2

    @property
    def telling(self) -> Row:
        return self.rows[self.chosen]

    @property
    def command(self) -> str:
        return MADE_WITH.format(text=self.text, layer=self.layer - 1, head=self.head - 1)

    @classmethod
    def of(cls, attended: Attended) -> Figure:
        words = [_word(token) for token in attended.tokens]
        rows = tuple(_row(at, words, weights) for at, weights in enumerate(attended.weights))
        shape = {"layers": attended.layers, "heads": attended.heads}
        return cls(rows, _telling(attended.weights), "".join(attended.tokens), attended.layer + 1, attended.head + 1, **shape)


@cache
def example() -> Figure:
    """Computed beforehand by `Figure.command`, whatever this store's workers do now."""
    read: dict[str, Any] = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    return Figure.of(Attended.from_json(read))


def _row(at: int, words: Sequence[str], weights: Sequence[float]) -> Row:
    looks = tuple(
        Look(words[other], weight, _middle(other), round(1 + 3 * weight, 2)) for other, weight in enumerate(weights) if weight >= SEEN
    )
    return Row(words[at], fitting(words[at], TOKEN_WIDTH, TOKEN_EM), _middle(at), looks)


def _middle(at: int) -> float:
    return TOP + ROW * (at + 0.5)


def _word(token: str) -> str:
    """A token as it can be read: what is only space gets a sign."""
    return token.strip() or ("↵" if "\n" in token else "␣")


def _telling(weights: Sequence[Sequence[float]]) -> int:
    """The token that looks longest at one far behind it, the first aside, where most heads look when they find nothing."""
    farthest = [max((weight * (at - other) for other, weight in enumerate(row) if other), default=0.0) for at, row in enumerate(weights)]
    return farthest.index(max(farthest))
