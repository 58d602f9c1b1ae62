"""Choosing the next token for many requests at once, each by its own parameters and its own random stream.

All filters (top_k, top_p, min_p) keep a beginning of the tokens sorted by probability, and a token is drawn from what is
kept by one uniform number per step: the first whose cumulative probability exceeds it. So only the most probable tokens
need sorting. The fast path looks at WINDOW of them; a row whose answer lies beyond is looked at wider, in the end whole,
with the same result.

The uniform number is a hash of the request's seed and the position in its answer, never a shared generator's state: a
seed gives the same text alone and in any batch.
"""

from __future__ import annotations

import hashlib
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from inference.protocol import SamplingParams

WINDOW = 64
WIDER_WINDOW = 2048  # for the rows that WINDOW does not settle
GREEDY_BELOW = 1e-5  # a temperature under this is taken for 0


@dataclass
class Choice:
    """How one request chooses, and what it has chosen."""

    params: SamplingParams
    seed: int
    chosen: Counter[int] = field(default_factory=Counter)  # tokens of the answer, for the penalties
    count: int = 0  # tokens of the answer

    @property
    def greedy(self) -> bool:
        return self.params.temperature < GREEDY_BELOW

    @property
    def penalised(self) -> bool:
        return bool(self.chosen) and (self.params.presence_penalty != 0 or self.params.frequency_penalty != 0)

    def uniform(self) -> float:
        """A number in [0, 1) that depends on the seed and the position alone."""
        raw = hashlib.blake2b(struct.pack("<qq", _signed(self.seed), self.count), digest_size=8).digest()
        return (int.from_bytes(raw, "little") >> 11) / 2**53  # as many bits as a float holds

    def note(self, token: int) -> None:
        self.count += 1
        self.chosen[token] += 1


def _signed(seed: int) -> int:
    return (seed + 2**63) % 2**64 - 2**63


def choose(logits: Tensor, choices: Sequence[Choice]) -> list[int | None]:
    """The next token of each row; None for a row whose logits are not numbers. logits: [rows, vocabulary]."""
    logits = logits.float()
    if any(choice.penalised or choice.params.logit_bias for choice in choices):
        logits = _adjusted(logits, choices)
    if all(choice.greedy for choice in choices):
        best, tokens = logits.max(dim=-1)
        return [token if good else None for token, good in zip(tokens.tolist(), best.isfinite().tolist(), strict=True)]
    table = _Table.of(choices, device=logits.device)
    scaled = logits / table.temperature[:, None]
    norms = scaled.logsumexp(dim=-1)
    top, ids = scaled.topk(min(WINDOW, logits.shape[-1]), dim=-1)
    places = _places((top - norms[:, None]).double().exp(), table, whole=top.shape[1] == logits.shape[1])
    tokens = ids.gather(1, places.clamp(min=0)[:, None])[:, 0]
    found: list[int | None] = []
    finite = norms.isfinite().tolist()
    for row, (place, token) in enumerate(zip(places.tolist(), tokens.tolist(), strict=True)):
        if not finite[row]:
            found.append(None)
        else:
            found.append(token if place >= 0 else _draw_beyond_window(scaled[row], norms[row], choices[row]))
    return found


@dataclass(frozen=True)
class _Table:
    """The parameters of all rows, each [rows]. A greedy row keeps the one most probable token."""

    temperature: Tensor  # float32
    top_k: Tensor  # int64; 0: all
    top_p: Tensor  # float64, as those below
    min_p: Tensor
    uniform: Tensor

    @classmethod
    def of(cls, choices: Sequence[Choice], *, device: torch.device) -> _Table:
        rows = [
            (1.0, 1, 1.0, 0.0, 0.0)
            if choice.greedy
            else (choice.params.temperature, choice.params.top_k, choice.params.top_p, choice.params.min_p, choice.uniform())
            for choice in choices
        ]
        numbers = torch.tensor(rows, dtype=torch.float64, device=device)
        return cls(numbers[:, 0].float(), numbers[:, 1].long(), numbers[:, 2], numbers[:, 3], numbers[:, 4])


def _places(shares: Tensor, table: _Table, *, whole: bool) -> Tensor:
    """Where in its row each token drawn stands; -1 where tokens beyond those given are needed to tell.

    The same as `draw`, for all rows at once. shares: float64 [rows, width], the largest first; `whole`: they are all.
    """
    width = shares.shape[1]
    at = torch.arange(width, device=shares.device)
    limited = (table.top_k > 0) & (table.top_k <= width)
    within = torch.where(table.top_k[:, None] > 0, at < table.top_k[:, None], True)
    total = torch.where(limited | whole, (shares * within).sum(dim=1), 1.0)  # what top_p is a share of
    before = shares.cumsum(dim=1) - shares
    kept = within & (before < (table.top_p * total)[:, None]) & (shares >= table.min_p[:, None] * shares[:, :1])
    kept |= at == 0
    mass = (shares * kept).sum(dim=1)
    cut = limited | whole | ~kept.all(dim=1)  # all that is kept is in sight
    target = table.uniform * torch.where(cut, mass, 1.0)
    drawn = ((shares * kept).cumsum(dim=1) <= target[:, None]).sum(dim=1)
    last = (kept & ((shares > 0) | (at == 0))).long().mul(at + 1).amax(dim=1) - 1
    plain = (table.top_k == 0) & (table.top_p >= 1) & (table.min_p <= 0)  # nothing is cut: what is in sight may settle it
    beyond = torch.where(cut, table.top_k > width, ~plain | (drawn >= width))
    return torch.where(beyond & (not whole), -1, torch.minimum(drawn, last))


def draw(shares: Sequence[float], choice: Choice, *, whole: bool) -> int | None:
    """Index of the token drawn. `shares`: probabilities, the largest first; `whole`: they are all there are.

    None when tokens beyond those given are needed to tell.
    """
    params = choice.params
    limit = len(shares) if whole else None  # how many tokens are kept; None: more than are given
    if 0 < params.top_k <= len(shares):
        limit = params.top_k
    elif params.top_k and not whole:
        return None  # top_p is a share of what top_k keeps
    total = sum(shares[:limit]) if limit is not None else 1.0
    uniform, cumulative, kept = choice.uniform(), 0.0, 0
    for share in shares[:limit]:
        if kept and (cumulative >= params.top_p * total or share < params.min_p * shares[0]):
            limit = kept
            break
        cumulative += share
        kept += 1
    if limit is None:
        # The cut may come later, but only after what is given: what is kept is at least `cumulative` and at most 1.
        if params.top_p < 1 or params.min_p > 0:
            return None
        return _first_beyond(shares, uniform) if uniform < cumulative else None
    return _first_beyond(shares[:kept], uniform * cumulative)


def _first_beyond(shares: Sequence[float], target: float) -> int:
    """The first index whose cumulative share exceeds `target`; the last with any share when rounding leaves none."""
    cumulative, last = 0.0, 0
    for index, share in enumerate(shares):
        cumulative += share
        if share > 0:
            last = index
        if cumulative > target:
            return index
    return last


def _draw_beyond_window(scaled: Tensor, norm: Tensor, choice: Choice) -> int:
    """The slow path for one row: more and more of the vocabulary sorted. scaled: [vocabulary]; norm: its logsumexp."""
    for width in (WIDER_WINDOW, len(scaled)):
        top, ids = scaled.topk(min(width, len(scaled)))
        at = draw((top - norm).double().exp().tolist(), choice, whole=len(top) == len(scaled))
        if at is not None:
            return int(ids[at])
    raise AssertionError("the whole vocabulary always settles it")


def _adjusted(logits: Tensor, choices: Sequence[Choice]) -> Tensor:
    """OpenAI's penalties and biases: each token of the answer so far loses presence_penalty, and frequency_penalty per
    occurrence; logit_bias is added to the tokens it names."""
    rows: list[int] = []
    tokens: list[int] = []
    changes: list[float] = []
    for row, choice in enumerate(choices):
        params = choice.params
        rows += [row] * len(params.logit_bias)
        tokens += params.logit_bias.keys()
        changes += params.logit_bias.values()
        if choice.penalised:
            rows += [row] * len(choice.chosen)
            tokens += choice.chosen.keys()
            changes += [-(params.presence_penalty + params.frequency_penalty * n) for n in choice.chosen.values()]
    device = logits.device
    where = (torch.tensor(rows, device=device), torch.tensor(tokens, device=device))
    return logits.index_put(where, torch.tensor(changes, dtype=logits.dtype, device=device), accumulate=True)
