"""95 % intervals of what was measured on a sample of items, and of the difference of two models on the same items.

Each item gives a row of numbers, and a metric is a function of the rows' sums: a mean is one sum over another, perplexity the
exponential of one, corpus BLEU something longer. So one bootstrap serves all: items are drawn with replacement, the rows
drawn are added up, and the metric is taken of the sums. Both models are drawn with the same items, so that their difference
is the models' and not the draw's. A share of yes and no has Wilson's interval instead, which does not shrink to nothing
where all items agree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

DRAWS = 2000
SEED = 1
Z = 1.959963984540054  # of a normal distribution, 95 % lie within so many standard deviations

Rows = Sequence[Sequence[float]]
ValueOf = Callable[[Sequence[float]], float]  # of the sums of the rows


@dataclass(frozen=True)
class Interval:
    low: float
    high: float


@lru_cache(maxsize=16)
def draws(count: int) -> Tensor:
    """The same draws wherever as many items are drawn from. int64 [DRAWS, count]"""
    return torch.randint(count, (DRAWS, count), generator=torch.Generator().manual_seed(SEED))


def middle(values: Tensor) -> Interval:
    """Within which 95 % of the values lie. float64 [DRAWS]"""
    low, high = torch.quantile(values, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Interval(low, high)


def sums(rows: Rows) -> list[float]:
    return torch.tensor(rows, dtype=torch.float64).sum(0).tolist()


def bootstrap(rows: Rows, value_of: ValueOf) -> Interval:
    return middle(_drawn(rows, value_of))


def difference(rows: Rows, others: Rows, value_of: ValueOf) -> Interval:
    """Of the value of `rows` less that of `others`, whose items are the same in the same order."""
    if len(rows) != len(others):
        raise ValueError(f"{len(rows)} items cannot be compared with {len(others)}")
    return middle(_drawn(rows, value_of) - _drawn(others, value_of))


def _drawn(rows: Rows, value_of: ValueOf) -> Tensor:
    drawn = torch.tensor(rows, dtype=torch.float64)[draws(len(rows))].sum(1)  # [DRAWS, width]
    return torch.tensor([value_of(each) for each in drawn.tolist()], dtype=torch.float64)


def wilson(successes: float, count: int) -> Interval:
    """Of a share, from 0 to 1 (Wilson 1927)."""
    share, z2 = successes / count, Z * Z / count
    centre = (share + z2 / 2) / (1 + z2)
    half = Z / (1 + z2) * (share * (1 - share) / count + z2 / (4 * count)) ** 0.5
    return Interval(max(0.0, centre - half), min(1.0, centre + half))
