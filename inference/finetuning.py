"""The parts of a LoRA fine-tune: its settings, the trainable adapter, batches, the loss and the schedule.

Everything random comes from the seed, and what is drawn while training (dropout) from torch's generator, whose state is
part of each checkpoint: so a run that was interrupted ends with the same bits as one that was not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inference.attention import CausalAttention
from inference.datasets import Example
from inference.job_process import JobError
from inference.model import GPT
from inference.naming import projection_shapes

PASS_TOKENS = 1024  # of one forward pass; a longer example makes a pass of its own
WARMUP_SHARE = 0.05
LAST_RATE_SHARE = 0.1  # the cosine ends here, not at zero: the last examples teach too
MAX_HELD_OUT = 100
MAX_STEPS = 20_000

T = TypeVar("T")


class Method(StrEnum):
    """What the examples say."""

    SUPERVISED = "supervised"  # what to answer
    PREFERENCE = "preference"  # which of two answers is better


class Targets(StrEnum):
    """The projections beside which an adapter is trained."""

    ALL = "all"
    ATTENTION = "attention"


@dataclass(frozen=True)
class Recipe:
    """How a fine-tune is run."""

    method: Method = Method.SUPERVISED
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

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Recipe:
        """Raises JobError for a setting or a value that is not known, and for what does not go together."""
        if unknown := sorted(value.keys() - {field.name for field in fields(cls)}):
            raise JobError("setting_unknown", f"The worker does not know the setting {unknown[0]!r}; it may be older than the store.")
        try:
            chosen = {"method": Method(value.get("method", "supervised")), "targets": Targets(value.get("targets", "all"))}
        except ValueError as error:
            raise JobError(
                "setting_unknown", f"The worker does not know a setting's value: {error}; it may be older than the store."
            ) from error
        if chosen["method"] == Method.PREFERENCE and value.get("dropout"):
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


class TrainableLora(nn.Module):
    """B·A·x, scaled, beside every projection of a frozen base; in float32 whatever the base is in."""

    def __init__(self, model: GPT, recipe: Recipe) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(recipe.seed)
        self._scale = recipe.scale
        self._dropout = recipe.dropout
        self._index: dict[str, int] = {}
        self.down = nn.ParameterList()
        self.up = nn.ParameterList()
        device = model.embedding.weight.device
        shapes = projection_shapes(model.config)
        trained = [name for name in shapes if recipe.targets == Targets.ALL or "attn." in name]
        for number, name in enumerate(trained):
            outs, ins = shapes[name]
            self._index[name] = number
            bound = 1 / math.sqrt(ins)  # what PEFT's kaiming_uniform_(a=√5) comes to
            a = (torch.rand(recipe.rank, ins, generator=random) * 2 - 1) * bound
            self.down.append(nn.Parameter(a.to(device)))
            self.up.append(nn.Parameter(torch.zeros(outs, recipe.rank, device=device)))

    def add(self, projection: str, x: Tensor, y: Tensor) -> Tensor:
        """y plus the adapter of x. x: [n, in]; y: [n, out]."""
        if (number := self._index.get(projection)) is None:
            return y
        inner = F.dropout(x.float(), self._dropout, self.training) if self._dropout else x.float()
        return y + (F.linear(F.linear(inner, self.down[number]), self.up[number]) * self._scale).to(y.dtype)

    def weights(self) -> dict[str, tuple[Tensor, Tensor]]:
        """A and B by the projection's Hugging Face name, as they are now."""
        return {name: (self.down[n].detach().clone(), self.up[n].detach().clone()) for name, n in self._index.items()}

    def restore(self, weights: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        with torch.no_grad():
            for name, (a, b) in weights.items():
                self.down[self._index[name]].copy_(a)
                self.up[self._index[name]].copy_(b)


@dataclass(frozen=True)
class Packed:
    """Examples one behind the other; row `rows[i]` of the hidden states must say `targets[i]`."""

    tokens: Tensor  # [n]
    positions: Tensor  # [n], from 0 in every example
    lengths: list[int]
    rows: Tensor  # [trained]
    targets: Tensor  # [trained]


def pack(examples: Sequence[Example], device: torch.device | str = "cpu") -> Packed:
    tokens: list[int] = []
    positions: list[int] = []
    rows: list[int] = []
    targets: list[int] = []
    for example in examples:
        rows += [len(tokens) + at - 1 for at in range(1, len(example.tokens)) if example.trained[at]]
        targets += [example.tokens[at] for at in range(1, len(example.tokens)) if example.trained[at]]
        tokens += example.tokens
        positions += range(len(example.tokens))
    tensors = [torch.tensor(values, dtype=torch.int64, device=device) for values in (tokens, positions, rows, targets)]
    return Packed(tensors[0], tensors[1], [len(example.tokens) for example in examples], tensors[2], tensors[3])


def grouped(items: Sequence[T], *, size: Callable[[T], int], limit: int) -> Iterator[list[T]]:
    """The items in order, as many in each group as the limit allows; one that is larger makes a group of its own."""
    waiting: list[T] = []
    taken = 0
    for item in items:
        if waiting and taken + size(item) > limit:
            yield waiting
            waiting, taken = [], 0
        waiting.append(item)
        taken += size(item)
    if waiting:
        yield waiting


def passes(examples: Sequence[Example]) -> Iterator[list[Example]]:
    """The examples in order, as many in each pass as PASS_TOKENS allow."""
    return grouped(examples, size=lambda example: len(example.tokens), limit=PASS_TOKENS)


def losses(model: GPT, packed: Packed, lora: TrainableLora | None) -> Tensor:
    """Cross-entropy of every trained token, float32 [trained]."""
    hidden = model(packed.tokens, packed.positions, CausalAttention(packed.lengths), lora)
    return F.cross_entropy(model.logits(hidden[packed.rows]).float(), packed.targets, reduction="none")


@torch.no_grad()
def mean_loss(model: GPT, examples: Sequence[Example], lora: TrainableLora | None, *, after_pass: Callable[[], object]) -> float:
    """Mean cross-entropy of a trained token; calls `after_pass` between passes, so that a long one can be watched and ended."""
    total, count = 0.0, 0
    for group in passes(examples):
        found = losses(model, pack(group, model.embedding.weight.device), lora)
        total += float(found.double().sum())
        count += len(found)
        after_pass()
    return total / max(count, 1)


def split(examples: Sequence[T], recipe: Recipe) -> tuple[list[T], list[T]]:
    """(for training, held out), by the seed alone."""
    order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(recipe.seed)).tolist()
    held = min(round(len(examples) * recipe.validation_share), MAX_HELD_OUT, len(examples) - 1)
    if recipe.validation_share > 0 and len(examples) > 1:
        held = max(held, 1)
    held_out = {order[at] for at in range(held)}
    return [e for at, e in enumerate(examples) if at not in held_out], [examples[at] for at in sorted(held_out)]


def batch(count: int, recipe: Recipe, step: int) -> list[int]:
    """Which of `count` examples step `step` takes, counted from 0 over all epochs: the cursor into the data is the step itself."""
    epoch, at = divmod(step, steps_per_epoch(count, recipe))
    random = torch.Generator().manual_seed(recipe.seed * 1_000_003 + epoch)
    order: list[int] = torch.randperm(count, generator=random)[at * recipe.batch_size : (at + 1) * recipe.batch_size].tolist()
    return order


def steps_per_epoch(count: int, recipe: Recipe) -> int:
    return math.ceil(count / recipe.batch_size)


def room_bytes(model_tokens: int, *, layers: int, hidden: int, inner: int, vocabulary: int) -> int:
    """About what a pass of so many tokens holds for its gradient: the states of every layer, and the logits."""
    return model_tokens * layers * 4 * (16 * hidden + 6 * inner) + 3 * 4 * model_tokens * vocabulary
