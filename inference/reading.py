"""What is read off a prompt's hidden states while it is computed, chunk by chunk: log-probabilities of its tokens, or a mean.

A request with a reader computes its whole prompt, since a cached prefix has no hidden states any more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

ROWS_AT_ONCE = 64  # whose logits are in memory together


@dataclass(frozen=True)
class TokenLogprob:
    """A token's log-probability under the model's raw distribution: before penalties, bias, temperature and filters."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()  # the most probable tokens there, best first


class Reader(Protocol):
    generates: bool  # whether the request goes on to an answer

    def read(self, hidden: Tensor, start: int) -> None:
        """hidden: float32 [count, hidden] of the prompt's positions from `start` on. A preempted prompt begins anew at 0."""
        ...


class PromptLogprobs:
    """Of each token of the prompt given those before it; the first has none."""

    generates = True

    def __init__(self, prompt: Sequence[int], logits: Callable[[Tensor], Tensor], *, top: int = 0) -> None:
        """`logits`: float32 [n, hidden] to float32 [n, vocabulary]."""
        self._prompt = prompt
        self._logits = logits
        self._top = top
        self.values: list[TokenLogprob] = []  # of the prompt's second token and those behind it

    def read(self, hidden: Tensor, start: int) -> None:
        del self.values[start:]
        for at in range(0, len(hidden), ROWS_AT_ONCE):
            rows = hidden[at : at + ROWS_AT_ONCE]
            following = list(self._prompt[start + at + 1 : start + at + 1 + len(rows)])
            if following:
                self.values += token_logprobs(self._logits(rows[: len(following)]), following, [self._top] * len(following))


class MeanPool:
    """The mean of the prompt's hidden states."""

    generates = False

    def __init__(self) -> None:
        self._total = torch.empty(0)
        self._count = 0

    def read(self, hidden: Tensor, start: int) -> None:
        if start == 0:
            self._total, self._count = torch.zeros(hidden.shape[1], dtype=torch.float64, device=hidden.device), 0
        self._total += hidden.double().sum(dim=0)
        self._count += len(hidden)

    def vector(self, dimensions: int | None = None) -> list[float]:
        """The mean's first `dimensions`, of length 1."""
        mean = (self._total / max(self._count, 1))[:dimensions]
        return (mean / mean.norm().clamp(min=1e-12)).tolist()


def token_logprobs(logits: Tensor, tokens: Sequence[int], tops: Sequence[int]) -> list[TokenLogprob]:
    """Of one token of each row, with as many of the row's most probable as asked for. logits: float32 [rows, vocabulary]."""
    norms = logits.logsumexp(dim=-1)
    of_tokens = logits.gather(1, torch.tensor(tokens, device=logits.device)[:, None])[:, 0] - norms
    best, ids = logits.topk(min(max(tops, default=0), logits.shape[1]), dim=-1)
    found = zip(tokens, of_tokens.tolist(), (best - norms[:, None]).tolist(), ids.tolist(), tops, strict=True)
    return [TokenLogprob(token, own, tuple(zip(its[:top], shares[:top], strict=True))) for token, own, shares, its, top in found]
