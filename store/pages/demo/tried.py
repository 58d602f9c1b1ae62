"""What each demo GPT was tried with: its ten fixed prompts, what it answered, and whether that is acceptable (docs/demo.md)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "outputs"
MAX_STARTERS = 4
STARTER_CHARS = 200  # the catalogue's limit


@dataclass(frozen=True)
class Answer:
    prompt: str
    output: str
    acceptable: bool
    reason: str


@dataclass(frozen=True)
class Trial:
    slug: str
    instructions: str  # as they were tried, with `parameters`
    parameters: dict[str, Any]
    answers: tuple[Answer, ...]

    @property
    def acceptable(self) -> int:
        return sum(answer.acceptable for answer in self.answers)

    @property
    def starters(self) -> list[str]:
        """Prompts that were answered well and fit on a button."""
        fitting = [answer.prompt for answer in self.answers if answer.acceptable and len(answer.prompt) <= STARTER_CHARS]
        return fitting[:MAX_STARTERS]


@cache
def trial_of(slug: str) -> Trial:
    raw = json.loads((FOLDER / f"{slug}.json").read_text(encoding="utf-8"))
    return Trial(slug, raw["instructions"], raw["parameters"], tuple(Answer(**answer) for answer in raw["answers"]))
