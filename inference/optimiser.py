"""AdamW (Loshchilov and Hutter 2019), as torch computes it and to the same bits, without loading torch's compiler.

The class torch.optim.AdamW loads it only to be left alone by it: 1.5 s of the start of each process that trains.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim.adam import adam

BETAS = (0.9, 0.999)
EPSILON = 1e-8
STEP = "step"
MOMENTS = ("exp_avg", "exp_avg_sq")


class AdamW:
    """Without weight decay. `state` holds of each parameter that had a gradient its STEP, which is
    counted on the processor, and its MOMENTS, under the names that torch gives them.
    """

    def __init__(self, parameters: Iterable[Tensor], *, lr: float) -> None:
        self.lr = lr
        self.state: dict[Tensor, dict[str, Tensor]] = {}
        self._parameters = list(parameters)

    @torch.no_grad()
    def step(self) -> None:
        """Moves each parameter that has a gradient."""
        moved = [parameter for parameter in self._parameters if parameter.grad is not None]
        states = [self.state.get(parameter) or self._begin(parameter) for parameter in moved]
        steps, averages, squares = ([state[name] for state in states] for name in (STEP, *MOMENTS))
        adam(
            moved,
            [parameter.grad for parameter in moved if parameter.grad is not None],
            averages,
            squares,
            [],
            steps,
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=self.lr,
            weight_decay=0.0,
            eps=EPSILON,
            maximize=False,
            decoupled_weight_decay=True,
        )

    def _begin(self, parameter: Tensor) -> dict[str, Tensor]:
        self.state[parameter] = {STEP: torch.tensor(0.0), **{name: torch.zeros_like(parameter) for name in MOMENTS}}
        return self.state[parameter]

    def forget_gradients(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None
