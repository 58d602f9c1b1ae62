"""Choosing the next token for many requests at once, each by its own parameters and its own random stream.

    logits → grammar → logit_bias, penalties, min_tokens → temperature → top_k → top_p of what that kept → min_p → one token

Everything happens to all rows together. What does not change from token to token stands in tensors that are made when the set
of requests changes. Each filter comes down to a threshold: a token is kept when it is at least that probable, so tokens as
probable as the last one kept are kept too, and no order among equals decides. Only top_k and top_p need sorted
probabilities; they look at the WINDOW most probable ones, and a row that these do not settle has all of them sorted.

The token is then drawn by one uniform number per step: the first, in the vocabulary's order, at which the cumulative
probability of what was kept exceeds it. The number is a hash of the request's seed and the position in its answer, never a
shared generator's state: a seed gives the same text alone and in any batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from inference.grammar import Constraint
from inference.sampling_params import SamplingParams

WINDOW = 64
GROUP = 8  # rows drawn together on processors: what they need beside the logits stays in the cache
BLOCK = 256  # probabilities summed together to find where a token lies
ALL = 2**62  # of top_k: no limit
NOTHING = -1  # no token
GAMMA = -0x61C8864680B583EB  # 0x9E3779B97F4A7C15 as a signed number, 2**64 divided by the golden ratio
GREEDY_BELOW = 1e-5  # a temperature under this is taken for 0
# What each token loses by its bit: a row for each byte. Looked up and added, measured to take a tenth of `masked_fill` by bits.
LOSSES = np.where(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little"), 0, -np.inf).astype(np.float32)


@dataclass(eq=False)
class Choice:
    """How one request chooses, and what it has chosen."""

    params: SamplingParams
    seed: int
    chosen: Counter[int] = field(default_factory=Counter)  # tokens of the answer, for the penalties
    count: int = 0  # tokens of the answer
    constraint: Constraint | None = None  # what its rule lets come next

    @property
    def greedy(self) -> bool:
        return self.params.temperature < GREEDY_BELOW

    @property
    def penalised(self) -> bool:
        return self.params.presence_penalty != 0 or self.params.frequency_penalty != 0

    def note(self, token: int) -> None:
        self.count += 1
        self.chosen[token] += 1


class Sampler:
    """Chooses for one engine. It keeps what it knows of a set of requests for as long as the set stays the same."""

    def __init__(self, *, eos_ids: Collection[int] = ()) -> None:
        """`eos_ids` are what `min_tokens` holds back."""
        self._eos_ids = sorted(eos_ids)
        self._batch: _Batch | None = None

    def choose(self, logits: Tensor, choices: Sequence[Choice]) -> list[int | None]:
        """The next token of each row; None for a row whose logits are not numbers. logits: float32 [rows, vocabulary]."""
        if self._batch is None or not self._batch.goes_on(choices, logits.device):
            self._batch = _Batch(choices, self._eos_ids, logits.device)
        return self._batch.choose(logits)


class _Batch:
    """One set of requests, its parameters in tensors."""

    def __init__(self, choices: Sequence[Choice], eos_ids: Sequence[int], device: torch.device) -> None:
        self._choices = list(choices)
        self._counts = [choice.count for choice in choices]
        self._device = device
        params = [choice.params for choice in choices]
        self._penalties = _Penalties(choices, device) if any(choice.penalised for choice in choices) else None
        self._biases = self._biases_of(params)
        self._positions = self._whole(self._counts)
        self._min_tokens = self._whole([p.min_tokens for p in params])
        self._held_back = max((p.min_tokens - choice.count for p, choice in zip(params, choices, strict=True)), default=0)
        self._eos_ids = self._whole(eos_ids)
        self._constrained = [row for row, choice in enumerate(choices) if choice.constraint is not None]
        self._is_any_greedy = any(choice.greedy for choice in choices)
        self._groups = [
            _Group(rows, choices, device)
            for ordered in (False, True)
            for rows in _grouped([row for row, c in enumerate(choices) if not c.greedy and _needs_order(c.params) is ordered], device)
        ]

    def goes_on(self, choices: Sequence[Choice], device: torch.device) -> bool:
        """Whether these are the same requests, each with the token that was chosen for it here and no other."""
        return choices == self._choices and [choice.count for choice in choices] == self._counts and device == self._device

    def choose(self, logits: Tensor) -> list[int | None]:
        logits = self._adjusted(logits)
        if self._is_any_greedy:
            best, tokens = logits.max(dim=-1)
            good = best.isfinite()
        else:
            tokens = torch.empty(len(logits), dtype=torch.int64, device=self._device)
            good = torch.empty(len(logits), dtype=torch.bool, device=self._device)
        for group in self._groups:
            tokens[group.rows], good[group.rows] = group.draw(logits[group.rows], self._positions[group.rows])
        if self._penalties is not None:
            self._penalties.note(tokens)
        self._counts = [count + 1 for count in self._counts]
        self._positions += 1
        self._held_back -= 1
        return [token if fine else None for token, fine in zip(tokens.tolist(), good.tolist(), strict=True)]

    def _adjusted(self, logits: Tensor) -> Tensor:
        """The logits with everything that comes before the temperature; those given are left as they are."""
        if self._constrained:
            logits = self._kept_to_rules(logits)
        if self._biases is not None:
            rows, tokens, values = self._biases
            logits = logits.index_put((rows, tokens), values, accumulate=True)
        if self._penalties is not None:
            logits = self._penalties.applied(logits)
        if self._held_back > 0 and len(self._eos_ids):
            early = (self._positions < self._min_tokens)[:, None]
            logits = logits.index_copy(1, self._eos_ids, logits[:, self._eos_ids].masked_fill(early, -torch.inf))
        return logits

    def _kept_to_rules(self, logits: Tensor) -> Tensor:
        """Without what a row's rule does not let come next; a vocabulary may be padded on either side."""
        constraints = [self._choices[row].constraint for row in self._constrained]
        packed = np.stack([np.frombuffer(constraint.allowed, dtype=np.uint8) for constraint in constraints if constraint is not None])
        losses = LOSSES.take(packed, axis=0).reshape(len(packed), -1)[:, : logits.shape[-1]]
        return logits.index_add(0, self._whole(self._constrained), torch.from_numpy(losses).to(self._device))

    def _biases_of(self, params: Sequence[SamplingParams]) -> tuple[Tensor, Tensor, Tensor] | None:
        biases = [(row, token, bias) for row, p in enumerate(params) for token, bias in p.logit_bias.items()]
        if not biases:
            return None
        rows, tokens, values = zip(*biases, strict=True)
        return self._whole(rows), self._whole(tokens), torch.tensor(values, device=self._device)

    def _whole(self, numbers: Sequence[int]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.int64, device=self._device)


class _Penalties:
    """OpenAI's: each token of the answer so far loses presence_penalty, and frequency_penalty per occurrence.

    Each row has a list of tokens and what each loses, a token that came again a second time, so that a step adds one column.
    """

    def __init__(self, choices: Sequence[Choice], device: torch.device) -> None:
        rows = [row for row, choice in enumerate(choices) if choice.penalised]
        params = [choices[row].params for row in rows]
        said = [choices[row].chosen for row in rows]
        width = max(map(len, said))
        tokens = [[*chosen, *[NOTHING] * (width - len(chosen))] for chosen in said]
        losses = [
            [p.presence_penalty + p.frequency_penalty * times for times in chosen.values()] + [0.0] * (width - len(chosen))
            for p, chosen in zip(params, said, strict=True)
        ]
        self._rows = torch.tensor(rows, device=device)
        self._tokens = torch.tensor(tokens, dtype=torch.int64, device=device).view(len(rows), width)
        self._losses = torch.tensor(losses, dtype=torch.float32, device=device).view(len(rows), width)
        self._presence = torch.tensor([p.presence_penalty for p in params], device=device)
        self._frequency = torch.tensor([p.frequency_penalty for p in params], device=device)

    def applied(self, logits: Tensor) -> Tensor:
        rows = self._rows[:, None].expand_as(self._tokens)
        return logits.index_put((rows, self._tokens.clamp(min=0)), -self._losses, accumulate=True)

    def note(self, tokens: Tensor) -> None:
        """tokens: of all rows of the batch."""
        new = tokens[self._rows][:, None]
        is_first = ~(self._tokens == new).any(dim=-1)
        self._tokens = torch.cat([self._tokens, new], dim=-1)
        self._losses = torch.cat([self._losses, (self._frequency + self._presence * is_first)[:, None]], dim=-1)


class _Group:
    """Some requests of a batch that are not greedy, from the temperature on."""

    def __init__(self, rows: Sequence[int], choices: Sequence[Choice], device: torch.device) -> None:
        """`rows` are the group's among the choices; all need their tokens in order, or none."""
        params = [choices[row].params for row in rows]
        self.rows = torch.tensor(rows, device=device)
        self._seeds = torch.tensor([_mixed(choices[row].seed) for row in rows], device=device)
        self._temperatures = torch.tensor([p.temperature for p in params], device=device)[:, None]
        self._min_p = torch.tensor([p.min_p for p in params], device=device)
        self._top_k = torch.tensor([p.top_k or ALL for p in params], device=device)
        self._top_p = torch.tensor([p.top_p for p in params], dtype=torch.float64, device=device)
        self._is_cut = _needs_order(params[0])
        self._is_filtered = self._is_cut or any(p.min_p for p in params)

    def draw(self, logits: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """A token for each row, and whether its numbers were numbers. logits: [rows, vocabulary]; positions: int64 [rows]."""
        scaled = logits / self._temperatures
        if missing := -logits.shape[-1] % BLOCK:
            scaled = F.pad(scaled, (0, missing), value=-torch.inf)
        shares = scaled.softmax(dim=-1)
        if self._is_filtered:
            lowest = self._min_p * shares.amax(dim=-1)
            if self._is_cut:
                lowest = torch.maximum(lowest, _cuts(shares, self._top_k, self._top_p))
            # `where` and `masked_fill` were measured to take 20 to 50 times as long. What is no number stays none.
            shares = torch.ge(shares, lowest[:, None], out=scaled).mul_(shares)
        return _first_beyond(shares, uniform(self._seeds, positions))


def _needs_order(params: SamplingParams) -> bool:
    return params.top_k > 0 or params.top_p < 1


def _grouped(rows: Sequence[int], device: torch.device) -> list[Sequence[int]]:
    size = GROUP if device.type == "cpu" else max(len(rows), 1)
    return [rows[at : at + size] for at in range(0, len(rows), size)]


def _cuts(shares: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """The least probability that top_k and top_p keep in each row. shares: [rows, vocabulary]; top_k, top_p: [rows]."""
    top = shares.topk(WINDOW, dim=-1).values
    cuts = _cuts_among(top, top_k, top_p)
    # Of more than the window kept by top_k, the window cannot tell what share top_p is.
    settled = (top_k <= WINDOW) | ((top_k == ALL) & (top.double().sum(dim=-1) >= top_p))
    beyond = (~settled).nonzero()[:, 0]
    if len(beyond):
        cuts[beyond] = _cuts_among(_sorted(shares[beyond]), top_k[beyond], top_p[beyond])
    return cuts


def _cuts_among(ordered: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """As `_cuts`, of the most probable tokens, those first."""
    cumulative = ordered.cumsum(dim=-1, dtype=torch.float64)
    last = top_k.clamp(max=ordered.shape[-1])[:, None] - 1
    total = torch.where(top_k[:, None] == ALL, 1.0, cumulative.gather(-1, last))
    nucleus_ends = torch.searchsorted(cumulative, top_p[:, None] * total)
    return ordered.gather(-1, torch.minimum(nucleus_ends, last))[:, 0]


def _sorted(shares: Tensor) -> Tensor:
    """Each row, the largest first. On processors by numpy, measured 40 times faster than torch for a row of 49,152."""
    if shares.device.type != "cpu":
        return shares.sort(dim=-1, descending=True).values
    return torch.from_numpy(np.sort(shares.numpy(), axis=-1)).flip(-1)


def _first_beyond(shares: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """The first token of each row at which the cumulative share exceeds `uniform` of the whole, and whether the whole is a number.

    shares: [rows, a multiple of BLOCK]. First the block is found, then the token in it, so that most is summed in float32.
    """
    blocks = shares.view(len(shares), -1, BLOCK)
    cumulative = blocks.sum(dim=-1).double().cumsum(dim=-1)
    target = uniform * cumulative[:, -1]
    block = _step_beyond(cumulative, target)[:, None]
    within = blocks.take_along_dim(block[:, :, None], dim=1)[:, 0].double().cumsum(dim=-1)
    before = torch.where(block > 0, cumulative.gather(-1, (block - 1).clamp(min=0)), 0.0)[:, 0]
    return block[:, 0] * BLOCK + _step_beyond(within, target - before), cumulative[:, -1].isfinite()


def _step_beyond(cumulative: Tensor, target: Tensor) -> Tensor:
    """The first column that exceeds the target; where rounding leaves none, the last that adds anything."""
    last = (cumulative < cumulative[:, -1:]).sum(dim=-1)
    return torch.minimum((cumulative <= target[:, None]).sum(dim=-1), last)


# ---------------------------------------------------------------- random numbers


def uniform(seeds: Tensor, positions: Tensor) -> Tensor:
    """Numbers in [0, 1), float64: splitmix64 (Steele, Lea, Flood 2014) of mixed seeds, `positions` steps on. Both int64 [rows]."""
    mixed = _mix(seeds + (positions + 1) * GAMMA)
    return _shifted(mixed, 11).double() / 2**53  # as many bits as a float holds


def _mixed(seed: int) -> int:
    """Seeds that people write lie close together; their streams must not overlap."""
    return int(_mix(torch.tensor(seed)))


def _mix(x: Tensor) -> Tensor:
    """int64 arithmetic wraps around, as the unsigned one does that this is written in elsewhere."""
    x = (x ^ _shifted(x, 30)) * -0x40A7B892E31B1A47
    x = (x ^ _shifted(x, 27)) * -0x6B2FB644ECCEEE15
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """To the right, with zeros from the left."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
