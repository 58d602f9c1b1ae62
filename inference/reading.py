"""What is read off a prompt while it is computed, chunk by chunk: log-probabilities of its tokens, a mean of its hidden states, or
how its tokens look at each other.

A request with a reader computes its whole prompt, since a cached prefix has no hidden states any more.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inference.protocol import Attended, Embedded
from inference.runner import Watched

ROWS_AT_ONCE = 64  # whose logits are in memory together


@dataclass(frozen=True)
class TokenLogprob:
    """A token's log-probability under the model's raw distribution: before penalties, bias, temperature and filters."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()  # the most probable tokens there, best first


class Reader:
    """Reads nothing; those below, and `inference.attended`, read something."""

    generates: bool  # whether the request goes on to an answer
    layer: int | None = None  # of which it is shown queries and keys as well

    @property
    def is_finite(self) -> bool:
        """Whether what was read are numbers. Asked where no answer is made, whose logits would show it."""
        return True

    def read(self, hidden: Tensor, start: int) -> None:
        """hidden: float32 [count, hidden] of the prompt's positions from `start` on. A preempted prompt begins anew at 0."""

    def look(self, queries: Tensor, keys: Tensor, start: int) -> None:
        """queries: [count, heads, head_dim], keys: [count, kv_heads, head_dim] of `layer`, of the positions that `read` is shown."""

    def show(self, hidden: Tensor, watched: Watched | None, *, rows: slice, start: int) -> None:
        """Reads what a step computed in these rows, which are those of the prompt from position `start` on."""
        self.read(hidden[rows], start)
        if watched is not None and self.layer is not None:
            queries, keys = watched.seen[self.layer]
            self.look(queries[rows], keys[rows], start)

    def told(self) -> Attended | Embedded | None:
        """What those who asked are told when the prompt is read."""
        return None


class PromptLogprobs(Reader):
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


class MeanPool(Reader):
    """The mean of the prompt's hidden states."""

    generates = False

    def __init__(self) -> None:
        self._total = torch.empty(0)
        self._count = 0

    @property
    def is_finite(self) -> bool:
        return bool(self._total.isfinite().all())

    def read(self, hidden: Tensor, start: int) -> None:
        if start == 0:
            self._total, self._count = torch.zeros(hidden.shape[1], dtype=torch.float64, device=hidden.device), 0
        self._total += hidden.double().sum(dim=0)
        self._count += len(hidden)

    def vector(self, dimensions: int | None = None) -> list[float]:
        """The mean's first `dimensions`, of length 1."""
        mean = (self._total / max(self._count, 1))[:dimensions]
        return (mean / mean.norm().clamp(min=1e-12)).tolist()


class Embedding(MeanPool):
    """A mean that is told to who asked for it."""

    def __init__(self, dimensions: int | None) -> None:
        super().__init__()
        self._dimensions = dimensions

    def told(self) -> Embedded:
        vector = self.vector(self._dimensions)
        return Embedded(base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode())


def token_logprobs(logits: Tensor, tokens: Sequence[int], tops: Sequence[int]) -> list[TokenLogprob]:
    """Of one token of each row, with as many of the row's most probable as asked for. logits: float32 [rows, vocabulary]."""
    norms = logits.logsumexp(dim=-1)
    of_tokens = logits.gather(1, torch.tensor(tokens, device=logits.device)[:, None])[:, 0] - norms
    best, ids = logits.topk(min(max(tops, default=0), logits.shape[1]), dim=-1)
    found = zip(tokens, of_tokens.tolist(), (best - norms[:, None]).tolist(), ids.tolist(), tops, strict=True)
    return [TokenLogprob(token, own, tuple(zip(its[:top], shares[:top], strict=True))) for token, own, shares, its, top in found]
