"""What training descends on: answers to be said (cross-entropy), or answers to be preferred (DPO).

Both work on numbered examples and give the loss of a step in parts, one for each forward pass, whose sum is the mean over
all of them: how they are grouped into passes changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from inference.batching import PASS_TOKENS, grouped, losses, mean_loss, pack, passes
from inference.datasets import Example, Pair
from inference.model import GPT
from inference.processes import ALONE, Processes
from inference.trainable import Trainable


class Objective(Protocol):
    train_count: int
    held_out_count: int

    def begin(self, after_pass: Callable[[], object]) -> None:
        """Measures what is compared with later, before the first step."""
        ...

    def kept(self) -> dict[str, Tensor]:
        """What `begin` measured, for a checkpoint."""
        ...

    def take_up(self, kept: Mapping[str, Tensor]) -> None: ...

    def parts(self, numbers: Sequence[int]) -> Iterator[Tensor]:
        """The loss of these training examples in parts, each with its graph: of several processes, this one's (`Processes.share`)."""
        ...

    def judge(self, after_pass: Callable[[], object]) -> dict[str, float]:
        """`validation_loss` of the held-out examples, and what else tells how good the model is on them."""
        ...

    def tokens(self, numbers: Sequence[int]) -> tuple[int, int]:
        """(read, learned) in these training examples."""
        ...


class Supervised:
    """Mean cross-entropy of a trained token."""

    def __init__(
        self, model: GPT, trainable: Trainable, train: Sequence[Example], held_out: Sequence[Example], *, processes: Processes = ALONE
    ) -> None:
        self._processes = processes
        self._model, self._adapter, self._train, self._held_out = model, trainable.adapter, train, held_out
        self.train_count, self.held_out_count = len(train), len(held_out)

    def begin(self, after_pass: Callable[[], object]) -> None:
        """Nothing is compared with."""

    def kept(self) -> dict[str, Tensor]:
        return {}

    def take_up(self, kept: Mapping[str, Tensor]) -> None:
        """Nothing was kept."""

    def parts(self, numbers: Sequence[int]) -> Iterator[Tensor]:
        examples = [self._train[number] for number in numbers]
        count = max(sum(sum(example.trained[1:]) for example in examples), 1)
        for group, times in self._processes.share([*passes(examples, self._processes)]):
            yield losses(self._model, pack(group, self._model.embedding.weight.device), self._adapter).sum() / count * times

    def judge(self, after_pass: Callable[[], object]) -> dict[str, float]:
        return {"validation_loss": mean_loss(self._model, self._held_out, self._adapter, after_pass=after_pass)}

    def tokens(self, numbers: Sequence[int]) -> tuple[int, int]:
        examples = [self._train[number] for number in numbers]
        return sum(len(example.tokens) for example in examples), sum(example.trained_tokens for example in examples)


class Preference:
    """Direct preference optimisation (Rafailov et al., 2023, arXiv:2305.18290, equation 7), without dropout.

    −log σ(β · ((log p(chosen) − log p₀(chosen)) − (log p(rejected) − log p₀(rejected)))), where p₀ is the model with the
    weights it started with: measured once, for all pairs, and part of each checkpoint.
    """

    def __init__(
        self,
        model: GPT,
        trainable: Trainable,
        train: Sequence[Pair],
        held_out: Sequence[Pair],
        *,
        beta: float,
        processes: Processes = ALONE,
    ) -> None:
        self._processes = processes
        self._model, self._adapter, self._beta = model, trainable.adapter, beta
        self._pairs = [*train, *held_out]
        self._reference = torch.empty(0, 2)  # [pairs, (chosen, rejected)]
        self.train_count, self.held_out_count = len(train), len(held_out)

    @torch.no_grad()
    def begin(self, after_pass: Callable[[], object]) -> None:
        found = []
        for group in self._passes(range(len(self._pairs))):
            found.append(self._log_probabilities(group))
            after_pass()
        self._reference = torch.cat(found)

    def kept(self) -> dict[str, Tensor]:
        return {"reference": self._reference.cpu()}

    def take_up(self, kept: Mapping[str, Tensor]) -> None:
        self._reference = kept["reference"].to(self._model.embedding.weight.device)

    def parts(self, numbers: Sequence[int]) -> Iterator[Tensor]:
        for group, times in self._processes.share([*self._passes(numbers)]):
            yield -F.logsigmoid(self._rewards(group)).sum() / len(numbers) * times

    @torch.no_grad()
    def judge(self, after_pass: Callable[[], object]) -> dict[str, float]:
        found = []
        for group in self._passes(range(self.train_count, len(self._pairs))):
            found.append(self._rewards(group).double())
            after_pass()
        rewards = torch.cat(found)
        return {"validation_loss": float(-F.logsigmoid(rewards).mean()), "validation_accuracy": float((rewards > 0).double().mean())}

    def tokens(self, numbers: Sequence[int]) -> tuple[int, int]:
        sides = [side for number in numbers for side in (self._pairs[number].chosen, self._pairs[number].rejected)]
        return sum(len(side.tokens) for side in sides), sum(side.trained_tokens for side in sides)

    def _rewards(self, numbers: Sequence[int]) -> Tensor:
        """β times how much more the model prefers the chosen answer than it did at the start, float32 [n]."""
        gained = self._log_probabilities(numbers) - self._reference[list(numbers)]
        return self._beta * (gained[:, 0] - gained[:, 1])

    def _log_probabilities(self, numbers: Sequence[int]) -> Tensor:
        """Of the chosen and the rejected answer of each pair, summed over its tokens, float32 [n, 2]."""
        sides = [side for number in numbers for side in (self._pairs[number].chosen, self._pairs[number].rejected)]
        of_tokens = -losses(self._model, pack(sides, self._model.embedding.weight.device), self._adapter)
        counts = [sum(side.trained[1:]) for side in sides]
        return torch.stack([of_answer.sum() for of_answer in of_tokens.split(counts)]).view(-1, 2)

    def _passes(self, numbers: Sequence[int]) -> Iterator[list[int]]:
        def size(number: int) -> int:
            pair = self._pairs[number]
            return len(pair.chosen.tokens) + len(pair.rejected.tokens)

        limit = self._processes.pass_tokens(sum(map(size, numbers)), most=PASS_TOKENS)
        return grouped(numbers, size=size, limit=limit)
