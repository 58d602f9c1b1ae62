"""What a run changes: an adapter beside a frozen base, or the weights themselves. Both keep what they learn in float32."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inference import checkpoint, lora
from inference.model import GPT
from inference.naming import projection_shapes
from inference.recipe import Recipe, Scope, Targets


class Trainable(Protocol):
    @property
    def adapter(self) -> TrainableLora | None:
        """What stands beside the model in a forward pass."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """What the optimiser moves, float32, always in the same order."""
        ...

    def before_step(self) -> None:
        """Gradients have arrived."""
        ...

    def after_step(self) -> None:
        """The optimiser has moved the parameters."""
        ...

    def train(self, mode: bool = True) -> object: ...

    def weights(self) -> dict[str, Tensor]:
        """A copy of the parameters by name, as they are now."""
        ...

    def restore(self, weights: Mapping[str, Tensor]) -> None: ...

    def save(self, folder: Path, weights: Mapping[str, Tensor], *, base: str, source: Path) -> None:
        """Writes what others load: a PEFT folder, or a Hugging Face one. `base` names what was trained, `source` has its files."""
        ...


def trainable_of(recipe: Recipe, model: GPT) -> TrainableLora | TrainableWeights:
    return TrainableWeights(model) if recipe.scope == Scope.WEIGHTS else TrainableLora(model, recipe)


class TrainableLora(nn.Module):
    """B·A·x, scaled, beside projections of a frozen base; kept in float32 whatever the base is in."""

    def __init__(self, model: GPT, recipe: Recipe) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(recipe.seed)
        self._config, self._recipe = model.config, recipe
        self._index: dict[str, int] = {}
        self._is_aside = False
        self.down = nn.ParameterList()
        self.up = nn.ParameterList()
        device = model.embedding.weight.device
        shapes = projection_shapes(model.config)
        adapted = [name for name in shapes if recipe.targets == Targets.ALL or "attn." in name]
        for number, name in enumerate(adapted):
            outs, ins = shapes[name]
            self._index[name] = number
            bound = 1 / math.sqrt(ins)  # what PEFT's kaiming_uniform_(a=√5) comes to
            a = (torch.rand(recipe.rank, ins, generator=random) * 2 - 1) * bound
            self.down.append(nn.Parameter(a.to(device)))
            self.up.append(nn.Parameter(torch.zeros(outs, recipe.rank, device=device)))

    @property
    def adapter(self) -> TrainableLora:
        return self

    def add(self, projection: str, x: Tensor, y: Tensor) -> Tensor:
        """y plus the adapter of x. x: [n, in]; y: [n, out]."""
        if self._is_aside or (number := self._index.get(projection)) is None:
            return y
        recipe = self._recipe
        inner = F.dropout(x, recipe.dropout, self.training) if recipe.dropout else x
        return cast(Tensor, _Beside.apply(inner, y, self.down[number], self.up[number], recipe.scale))

    @contextmanager
    def set_aside(self) -> Iterator[None]:
        """The model is its base meanwhile."""
        self._is_aside = True
        try:
            yield
        finally:
            self._is_aside = False

    def before_step(self) -> None:
        """The gradients are where the optimiser looks for them."""

    def after_step(self) -> None:
        """What was moved is what is used."""

    def weights(self) -> dict[str, Tensor]:
        """A [rank, in] and B [out, rank] of each adapted projection as `<Hugging Face name>.A` and `.B`."""
        sides = {"A": self.down, "B": self.up}
        return {f"{name}.{side}": sides[side][n].detach().clone() for name, n in self._index.items() for side in "AB"}

    @torch.no_grad()
    def restore(self, weights: Mapping[str, Tensor]) -> None:
        for name, number in self._index.items():
            self.down[number].copy_(weights[f"{name}.A"])
            self.up[number].copy_(weights[f"{name}.B"])

    def save(self, folder: Path, weights: Mapping[str, Tensor], *, base: str, source: Path) -> None:
        pairs = {name: (weights[f"{name}.A"], weights[f"{name}.B"]) for name in self._index}
        recipe = self._recipe
        lora.save(folder, pairs, config=self._config, alpha=recipe.alpha, base=base, rank_stabilised=recipe.rank_stabilised)


class _Beside(torch.autograd.Function):
    """y + scale · B·A·x in the place of y, multiplied in the dtype of x, of which nothing but x and A·x is kept for the gradients.

    x: [n, in]; y: [n, out]; A: float32 [rank, in]; B: float32 [out, rank].
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
        a, b = a.to(x.dtype), (b * scale).to(x.dtype)
        inner = x @ a.t()
        ctx.save_for_backward(x, inner, a, b)
        ctx.scale = scale
        ctx.mark_dirty(y)
        return y.addmm_(inner, b.t())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, inner, a, b = ctx.saved_tensors
        inner_grad = grad @ b
        x_grad = inner_grad @ a if ctx.needs_input_grad[0] else None
        return x_grad, grad, (inner_grad.t() @ x).float(), (grad.t() @ inner).float() * ctx.scale, None


class TrainableWeights:
    """All weights of a model. Of those it keeps in 16 bits the optimiser moves copies in float32: small steps would be rounded away."""

    adapter: TrainableLora | None = None

    def __init__(self, model: GPT) -> None:
        self._model = model.requires_grad_(True)
        self._own = dict(model.named_parameters())
        self._moved = {name: own if own.dtype == torch.float32 else nn.Parameter(own.detach().float()) for name, own in self._own.items()}

    def parameters(self) -> Iterator[nn.Parameter]:
        return iter(self._moved.values())

    def before_step(self) -> None:
        for name, moved in self._moved.items():
            own = self._own[name]
            if moved is not own and own.grad is not None:
                moved.grad, own.grad = own.grad.float(), None

    @torch.no_grad()
    def after_step(self) -> None:
        for name, moved in self._moved.items():
            if moved is not self._own[name]:
                self._own[name].copy_(moved)

    def train(self, mode: bool = True) -> None:
        """Nothing in the model depends on it."""

    def weights(self) -> dict[str, Tensor]:
        return {name: moved.detach().clone() for name, moved in self._moved.items()}

    @torch.no_grad()
    def restore(self, weights: Mapping[str, Tensor]) -> None:
        for name, moved in self._moved.items():
            moved.copy_(weights[name])
        self.after_step()

    def save(self, folder: Path, weights: Mapping[str, Tensor], *, base: str, source: Path) -> None:
        checkpoint.save(folder, weights, source=source)
