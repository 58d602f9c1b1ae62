"""Perplexity on a text of our own, with an interval, for a model and beside it for its base.

The text stands in `texts/`, was written for this purpose and is on no crawled page, so no model was trained on it. Its
paragraphs are scored one by one; the interval comes from drawing paragraphs with replacement (a percentile bootstrap).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from inference import intervals
from inference.attention import CausalAttention
from inference.lora import Adapter
from inference.lora_batch import LoraBatch
from inference.model import GPT
from inference.tokenizer import Tokenizer

TEXT = Path(__file__).parent / "texts" / "english.txt"
DRAWS, SEED = intervals.DRAWS, intervals.SEED


@dataclass(frozen=True)
class Perplexity:
    """exp of the mean loss of a token, with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Scores:
    """For each paragraph, the sum of its tokens' losses and how many tokens were predicted."""

    losses: torch.Tensor  # float64 [paragraphs]
    tokens: torch.Tensor  # int64 [paragraphs]

    def perplexity(self) -> Perplexity:
        draws = intervals.draws(len(self.losses))
        found = intervals.middle((self.losses[draws].sum(1) / self.tokens[draws].sum(1)).exp())
        return Perplexity(float((self.losses.sum() / self.tokens.sum()).exp()), found.low, found.high)


@cache
def paragraphs() -> tuple[str, ...]:
    return tuple(part.strip() for part in TEXT.read_text(encoding="utf-8").split("\n\n") if part.strip())


@cache
def text_sha256() -> str:
    return hashlib.sha256(TEXT.read_bytes()).hexdigest()


@torch.inference_mode()
def score(model: GPT, tokenizer: Tokenizer, *, adapter: Adapter | None = None, after_each: Callable[[float], object]) -> Scores:
    """Losses of every paragraph, each begun with the end-of-text token so that its first word is predicted too.

    `after_each` is told the share done.
    """
    device = model.embedding.weight.device
    start = min(tokenizer.eos_ids) if tokenizer.eos_ids else None
    lora = LoraBatch.for_all(adapter) if adapter is not None else None
    losses, counts = [], []
    for number, text in enumerate(paragraphs(), 1):
        tokens = ([start] if start is not None else []) + tokenizer.encode(text)
        tokens = tokens[: model.config.context_length]
        ids = torch.tensor(tokens, device=device)
        hidden = model(ids, torch.arange(len(tokens), device=device), CausalAttention([len(tokens)]), lora)
        logits = model.logits(hidden[:-1]).float()
        losses.append(float(torch.nn.functional.cross_entropy(logits, ids[1:], reduction="none").double().sum()))
        counts.append(len(tokens) - 1)
        after_each(number / len(paragraphs()))
    return Scores(torch.tensor(losses, dtype=torch.float64), torch.tensor(counts))
