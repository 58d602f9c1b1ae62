"""In which order listings stand.

Where nothing is searched for, by their rank, from 0 to 1:

    rank = 0.30 rating + 0.25 quality + 0.30 usage + 0.15 freshness

    rating     (b - 1) / 4, where b is the Bayesian average of the stars; m = 3.5 of them where nobody has rated yet
    quality    1/2 + 1/2 · mean of tanh(4 r) over the measured suites, r = (value - base) / |base| with the sign that makes more
               better, 0 where the interval of the difference holds 0; 0.4 for what was not measured beside a base
    usage      ln(1 + u) / ln(1 + 10 000), at most 1; u = Σ 2^(-age / 7 days) over all answers: what is used now, not what once was
    freshness  2^(-age / 90 days) since the first approval

Where words are searched for, by score = 0.65 text + 0.35 rank, where text says how well the words match:

    1.0 the name is what was asked for, nothing more      0.85 all words stand in names
    0.6 all in names, summaries, use cases, publisher, tags      0.35 all anywhere
    0.3 (share of the words found) where nothing holds all of them

No publisher's own suite counts, nor speed (a matter of the machine), nor where neither end of a scale is better.

Usage decays without any row being touched: a listing keeps heat = ln Σ 2^(t_i / 7 days), t_i the time of each use, so the order by
heat is the order by u at every moment, and u = exp(heat - ln 2 · now / 7 days). Ranks are written again in turn (`rerank`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.db.models import F, Value
from django.db.models.functions import Abs, Exp, Greatest, Ln
from django.utils import timezone

from store.catalog.models import Listing, SearchEntry

EXACT, IN_NAME, IN_LEAD, ANYWHERE, IN_PART = 1.0, 0.85, 0.6, 0.35, 0.3
TEXT, RANK = 0.65, 0.35
RATING, QUALITY, USAGE, FRESHNESS = 0.30, 0.25, 0.30, 0.15
UNRATED_STARS, UNMEASURED = 3.5, 0.4
FULL_USAGE = 10_000
USE_HALF_LIFE_S, FRESH_HALF_LIFE_S = 7 * 86_400, 90 * 86_400
_FAR = 50.0  # e^-50 is nothing beside 1, and smaller powers are an error in PostgreSQL


@dataclass(frozen=True)
class Measured:
    """What ranking looks at of a measurement."""

    name: str
    value: float
    base_value: float | None
    difference_low: float | None
    difference_high: float | None
    lower_is_better: bool

    @property
    def counts(self) -> bool:
        return self.base_value is not None and not self.name.startswith(("own-", "speed", "bias"))

    @property
    def gain(self) -> float:
        """-1 to 1: how much better than the base, 0 where it may be chance."""
        assert self.base_value is not None
        low, high = self.difference_low, self.difference_high
        if low is not None and high is not None and low <= 0 <= high:
            return 0.0
        relative = (self.value - self.base_value) / max(abs(self.base_value), 1e-9)
        return math.tanh(4 * (-relative if self.lower_is_better else relative))


def quality_of(measurements: Iterable[Measured]) -> float | None:
    """0 to 1, 0.5 as good as its base; None where nothing was measured beside one."""
    gains = [measured.gain for measured in measurements if measured.counts]
    return 0.5 + 0.5 * sum(gains) / len(gains) if gains else None


def rank_of(*, rating: float, quality: float | None, uses: float, age_s: float) -> float:
    """`rating` is Bayesian, 0 without ratings; `uses` are decayed ones."""
    stars = (max(rating or UNRATED_STARS, 1.0) - 1) / 4
    usage = min(math.log1p(max(uses, 0.0)) / math.log1p(FULL_USAGE), 1.0)
    fresh = 2 ** (-max(age_s, 0.0) / FRESH_HALF_LIFE_S)
    return RATING * stars + QUALITY * (UNMEASURED if quality is None else quality) + USAGE * usage + FRESHNESS * fresh


def score_of(text: float, rank: float) -> float:
    return TEXT * text + RANK * rank


def heat_at(seconds: float) -> float:
    """The heat that one use at this time (since 1970) brings."""
    return seconds * math.log(2) / USE_HALF_LIFE_S


def uses_of(heat: float, now_s: float) -> float:
    """The decayed number of uses."""
    return math.exp(min(heat - heat_at(now_s), 700.0)) if heat else 0.0


def used(listing_id: int, times: int = 1) -> None:
    """Counts answers of a listing, for its page and for what is trending. Call it in the transaction that records them."""
    Listing.objects.filter(pk=listing_id).update(request_count=F("request_count") + times)
    warm(listing_id, times)


def warm(listing_id: int, times: int) -> None:
    new = heat_at(timezone.now().timestamp()) + math.log(times)
    apart: Any = Greatest(-Abs(F("heat") - Value(new)), Value(-_FAR))
    SearchEntry.objects.filter(listing_id=listing_id).update(heat=Greatest(F("heat"), Value(new)) + Ln(Value(1.0) + Exp(apart)))
