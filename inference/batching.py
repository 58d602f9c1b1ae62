"""How examples become steps: what is held out, batches, passes of packed examples, and the loss of every token.

Everything random comes from the seed, and what is drawn while training (dropout) from torch's generator, whose state is
part of each checkpoint: so a run that was interrupted ends with the same bits as one that was not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from inference.attention import CausalAttention
from inference.datasets import Example
from inference.held_out import held_out
from inference.model import GPT
from inference.processes import ALONE, Processes
from inference.recipe import Recipe
from inference.trainable import TrainableLora

PASS_TOKENS = 1024  # of one forward pass; a longer example makes a pass of its own
HEAD_ROWS = 128  # tokens whose logits exist at once
MAX_STEPS = 20_000

T = TypeVar("T")


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


def passes(examples: Sequence[Example], processes: Processes = ALONE) -> Iterator[list[Example]]:
    """The examples in order, as many in each pass as PASS_TOKENS allow, or fewer so that there are passes for several processes."""
    limit = processes.pass_tokens(sum(len(example.tokens) for example in examples), most=PASS_TOKENS)
    return grouped(examples, size=lambda example: len(example.tokens), limit=limit)


def losses(model: GPT, packed: Packed, lora: TrainableLora | None) -> Tensor:
    """Cross-entropy of every trained token, float32 [trained]."""
    hidden = model(packed.tokens, packed.positions, CausalAttention(packed.lengths), lora)[packed.rows]
    if model.head_weight.requires_grad:
        return F.cross_entropy(model.logits(hidden).float(), packed.targets, reduction="none")
    return cast(Tensor, _FrozenHead.apply(hidden, packed.targets, model))


class _FrozenHead(torch.autograd.Function):
    """Cross-entropy float32 [n] behind a head that is not trained, of some tokens at a time: all their logits never exist at once.

    A token's gradient is (softmax - target) times the head's rows and whatever its loss is multiplied with later, so it is
    computed while its logits are there.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, targets: Tensor, model: GPT) -> Tensor:
        grads, found = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None, []
        weight = model.head_weight
        for rows in torch.arange(len(hidden), device=hidden.device).split(HEAD_ROWS):
            logits = model.logits(hidden[rows]).float()
            logits -= logits.logsumexp(dim=-1, keepdim=True)
            found.append(-logits.gather(1, targets[rows, None])[:, 0])
            if grads is not None:
                logits.exp_().scatter_add_(1, targets[rows, None], logits.new_full((len(rows), 1), -1.0))
                grads[rows] = (logits.to(weight.dtype) @ weight).to(grads.dtype)
        ctx.save_for_backward(*([] if grads is None else [grads]))
        return torch.cat(found) if found else hidden.new_empty(0, dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (grads,) = ctx.saved_tensors
        return grads * grad[:, None].to(grads.dtype), None, None


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
    held = held_out(len(examples), share=recipe.validation_share, seed=recipe.seed)
    return [e for at, e in enumerate(examples) if at not in held], [examples[at] for at in sorted(held)]


def batch(count: int, recipe: Recipe, step: int) -> list[int]:
    """Which of `count` examples step `step` takes, counted from 0 over all epochs: the cursor into the data is the step itself."""
    epoch, at = divmod(step, steps_per_epoch(count, recipe))
    random = torch.Generator().manual_seed(recipe.seed * 1_000_003 + epoch)
    order: list[int] = torch.randperm(count, generator=random)[at * recipe.batch_size : (at + 1) * recipe.batch_size].tolist()
    return order


def steps_per_epoch(count: int, recipe: Recipe) -> int:
    return math.ceil(count / recipe.batch_size)


def room_bytes(
    model_tokens: int, *, layers: int, hidden: int, inner: int, vocabulary: int, head_learns: bool = True, recompute: bool = False
) -> int:
    """About what a pass of so many tokens holds for its gradient: the states of every layer, and the logits, of HEAD_ROWS tokens at a
    time where the head does not learn. With `recompute` what goes into every layer, and the states of one.
    """
    within, between = 4 * (16 * hidden + 6 * inner), 4 * hidden
    kept = within + layers * between if recompute else layers * within
    logit_rows = model_tokens if head_learns else min(model_tokens, HEAD_ROWS)
    return model_tokens * kept + logit_rows * 3 * 4 * vocabulary
