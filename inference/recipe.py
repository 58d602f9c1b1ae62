"""How a run is made: what it learns from, what it changes, and the schedule of its learning rate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from inference.datasets import Use
from inference.job_process import JobError

WARMUP_SHARE = 0.05
LAST_RATE_SHARE = 0.1  # the cosine ends here, not at zero: the last examples teach too


class Scope(StrEnum):
    """What is changed."""

    ADAPTER = "adapter"  # LoRA
    WEIGHTS = "weights"  # all of them


class Targets(StrEnum):
    """The projections beside which an adapter is trained."""

    ALL = "all"
    ATTENTION = "attention"


@dataclass(frozen=True)
class Recipe:
    """How a fine-tune is run."""

    method: Use = Use.SUPERVISED
    scope: Scope = Scope.ADAPTER
    beta: float = 0.1  # of a preference: how far the model may leave the one it started as; higher is nearer
    rank: int = 8
    alpha: float = 16.0
    rank_stabilised: bool = False  # alpha / √rank rather than alpha / rank (Kalajdzievski, 2023, arXiv:2312.03732)
    targets: Targets = Targets.ALL
    dropout: float = 0.0  # of what goes into the adapter
    epochs: int = 3
    learning_rate: float = 2e-4  # the highest
    batch_size: int = 8  # examples of one step
    max_length: int = 512  # tokens of an example; longer ones are left out
    validation_share: float = 0.1
    patience: int = 0  # validations in a row without a better one that end the run early; 0: it goes to its end
    seed: int = 1
    recompute: bool = False  # less memory, for the time of a second forward pass (inference.recomputing)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Recipe:
        """Raises JobError for a setting or a value that is not known, and for what does not go together."""
        if unknown := sorted(value.keys() - {field.name for field in fields(cls)}):
            raise JobError("setting_unknown", f"The worker does not know the setting {unknown[0]!r}; it may be older than the store.")
        named = {"method": Use, "scope": Scope, "targets": Targets}
        try:
            chosen = {name: kind(value[name]) for name, kind in named.items() if name in value}
        except ValueError as error:
            raise JobError(
                "setting_unknown", f"The worker does not know a setting's value: {error}; it may be older than the store."
            ) from error
        if chosen.get("method") == Use.PREFERENCE and value.get("dropout"):
            raise JobError("setting_unusable", "Preferences are learned without dropout: the start and the model are compared.")
        return cls(**{**value, **chosen})

    @property
    def scale(self) -> float:
        """What B·A·x is multiplied with."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilised else self.rank)

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of step `step` of `steps`, counted from 0: a short rise, then a half cosine."""
        rise = max(1, round(WARMUP_SHARE * steps))
        if step < rise:
            return self.learning_rate * (step + 1) / rise
        share = (step - rise) / max(1, steps - rise)
        return self.learning_rate * (LAST_RATE_SHARE + (1 - LAST_RATE_SHARE) * 0.5 * (1 + math.cos(math.pi * share)))
