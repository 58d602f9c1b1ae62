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
    return cast(Tensor, _Head.apply(hidden, model.head_weight, packed.targets))


class _Head(torch.autograd.Function):
    """Cross-entropy float32 [n] of hidden states [n, hidden] behind a head [vocabulary, hidden], HEAD_ROWS tokens at a time, whose
    float32 logits stand in the same memory: pages that are asked for and given back again took longer than what is computed in them.

    A token's gradient is (softmax - target) times the head's rows and whatever its loss is multiplied with later. Where the head is
    not trained it is computed while the logits are there; else they are computed once more, since the head's own gradient
    needs to know that factor.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        of_hidden, of_weight = ctx.needs_input_grad[:2]
        found = hidden.new_empty(len(hidden), dtype=torch.float32)
        grads = torch.empty_like(hidden) if of_hidden and not of_weight else None
        for rows, exponentials, sums in _softmaxes(hidden, weight, targets, found):
            if grads is not None:
                exponentials.scatter_add_(1, targets[rows, None], -sums)
                grads[rows] = (exponentials.to(weight.dtype) @ weight).to(grads.dtype).div_(sums)
        ctx.save_for_backward(*((hidden, weight, targets) if of_weight else () if grads is None else (grads,)))
        return found

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if not ctx.needs_input_grad[1]:
            (grads,) = ctx.saved_tensors
            return grads * grad[:, None].to(grads.dtype), None, None
        hidden, weight, targets = ctx.saved_tensors
        moved = weight.new_empty(len(hidden), len(weight))
        for rows, exponentials, sums in _softmaxes(hidden, weight, targets):
            exponentials.scatter_add_(1, targets[rows, None], -sums)
            moved[rows] = exponentials.mul_(grad[rows, None] / sums)
        return (moved @ weight).to(hidden.dtype), moved.t() @ hidden.to(weight.dtype), None


def _softmaxes(hidden: Tensor, weight: Tensor, targets: Tensor, found: Tensor | None = None) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """(rows, the exponentials of their logits less the largest, the sums of these [rows, 1]), in memory that the next take over.

    `found` gets their cross-entropies.
    """
    logits = weight.new_empty(min(len(hidden), HEAD_ROWS), len(weight))
    wide = logits.float()  # the same memory where they are float32
    for at in range(0, len(hidden), HEAD_ROWS):
        rows = slice(at, at + HEAD_ROWS)
        x = hidden[rows].to(weight.dtype)
        torch.mm(x, weight.t(), out=logits[: len(x)])
        raised = wide[: len(x)].copy_(logits[: len(x)])
        raised -= raised.amax(dim=-1, keepdim=True)
        if found is not None:
            found[rows] = -raised.gather(1, targets[rows, None])[:, 0]
        sums = raised.exp_().sum(dim=-1, keepdim=True)
        if found is not None:
            found[rows] += sums[:, 0].log()
        yield rows, raised, sums


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
    """About what a pass of so many tokens holds for its gradient, without the gradients of what is learned: the states of every layer and
    the logits of HEAD_ROWS tokens, where the head learns also their gradients, of all tokens. With `recompute` what goes into
    every layer, and beside that once the states of a layer and once the logits.
    """
    within, between = model_tokens * 4 * (16 * hidden + 6 * inner), model_tokens * 4 * hidden
    logits = (2 * min(model_tokens, HEAD_ROWS) + (model_tokens if head_learns else 0)) * 4 * vocabulary
    return layers * between + max(within, logits) if recompute else layers * within + logits
