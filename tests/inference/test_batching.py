"""The loss of every token, behind a head that is trained and behind one that is not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from inference import batching
from inference.checkpoint import load_gpt
from inference.examples import Example
from inference.recipe import Recipe
from inference.trainable import TrainableLora, _Beside
from tests.inference.tiny import tiny_base


@pytest.mark.parametrize("tied", [True, False])
def test_a_frozen_head_gives_the_losses_and_gradients_of_one_that_is_not(
    tmp_path: Path, tied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "HEAD_ROWS", 7)  # so that they come in several parts of unequal size
    model = load_gpt(tiny_base(tmp_path, tie_word_embeddings=tied), dtype=torch.float32).requires_grad_(False)
    lora = TrainableLora(model, Recipe(rank=4))
    for number, up in enumerate(lora.up):
        torch.nn.init.normal_(up, std=0.02, generator=torch.Generator().manual_seed(number))
    packed = batching.pack([Example(tuple(range(1, 20)), (True,) * 19), Example((5, 3, 9, 4), (False, False, True, True))])
    weights = torch.rand(len(packed.rows), generator=torch.Generator().manual_seed(0))  # each token's loss counts otherwise

    found = {}
    for trains_head in (True, False):
        model.head_weight.requires_grad_(trains_head)
        losses = batching.losses(model, packed, lora)
        found[trains_head] = losses.detach(), torch.autograd.grad((losses * weights).sum(), list(lora.parameters()))

    assert torch.allclose(found[True][0], found[False][0], atol=1e-5)
    for theirs, ours in zip(found[True][1], found[False][1], strict=True):
        assert torch.allclose(theirs, ours, rtol=1e-4, atol=1e-4)


def test_an_adapter_beside_a_projection_has_the_gradients_of_its_formula() -> None:
    random = torch.Generator().manual_seed(0)
    x, y, a, b = (torch.randn(shape, generator=random, requires_grad=True) for shape in ((9, 6), (9, 5), (3, 6), (5, 3)))
    weights = torch.randn(9, 5, generator=random)
    ours, formula = _Beside.apply(x, y, a, b, 0.7), y + 0.7 * x @ a.t() @ b.t()

    assert torch.allclose(ours, formula, atol=1e-5)
    for found, expected in zip(*(torch.autograd.grad((its * weights).sum(), (x, y, a, b)) for its in (ours, formula)), strict=True):
        assert torch.allclose(found, expected, atol=1e-5)
