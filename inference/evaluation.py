"""Perplexity on a small text of our own, with an interval that anybody can compute again."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from inference.attention import CausalAttention
from inference.lora import Adapter, LoraBatch
from inference.model import GPT
from inference.tokenizer import Tokenizer

PROSE = Path(__file__).parent / "texts" / "prose.txt"
RESAMPLES = 1000
SEED = 20261124


@dataclass(frozen=True)
class Perplexity:
    """exp of the mean negative log-likelihood per token; `low` and `high` bound 95 % of bootstrap resamples of the texts."""

    value: float
    low: float
    high: float
    tokens: int
    losses: tuple[tuple[float, int], ...]  # of each text: sum of negative log-likelihoods, tokens


def texts(path: Path = PROSE) -> list[str]:
    """The paragraphs of the file."""
    return [part.strip() for part in path.read_text(encoding="utf-8").split("\n\n") if part.strip()]


def digest(path: Path = PROSE) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@torch.inference_mode()
def perplexity(model: GPT, tokenizer: Tokenizer, documents: Sequence[str], *, adapter: Adapter | None = None) -> Perplexity:
    """Of each document on its own; its first token is read but not scored. Raises ValueError when nothing can be scored."""
    lora = LoraBatch([(adapter, None)]) if adapter else None
    losses = []
    for document in documents:
        tokens = torch.tensor(tokenizer.encode(document)[: model.config.context_length])
        if len(tokens) < 2:
            continue
        hidden = model(tokens, torch.arange(len(tokens)), CausalAttention([len(tokens)]), lora)
        logits = model.logits(hidden[:-1]).float()
        losses.append((F.cross_entropy(logits, tokens[1:], reduction="sum").item(), len(tokens) - 1))
    if not losses:
        raise ValueError("no document has two tokens")
    low, high = _interval(losses)
    return Perplexity(_of(losses), low, high, sum(count for _, count in losses), tuple(losses))


def _of(losses: Sequence[tuple[float, int]]) -> float:
    mean = sum(loss for loss, _ in losses) / sum(count for _, count in losses)
    return math.exp(mean) if mean < 700 else math.inf


def _interval(losses: Sequence[tuple[float, int]]) -> tuple[float, float]:
    """Percentile bootstrap over documents (Efron, 1979) with a fixed seed."""
    generator = torch.Generator().manual_seed(SEED)
    drawn = torch.randint(len(losses), (RESAMPLES, len(losses)), generator=generator)
    table = torch.tensor(losses, dtype=torch.float64)[drawn].sum(dim=1)  # [resamples, 2]
    means = (table[:, 0] / table[:, 1]).sort().values
    return math.exp(means[int(0.025 * RESAMPLES)].item()), math.exp(means[int(0.975 * RESAMPLES) - 1].item())
