"""The loss of every token, behind a head that is trained and behind one that is not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from inference import batching
from inference.attention import CausalAttention
from inference.checkpoint import load_gpt
from inference.examples import Example
from inference.model import RMSNorm
from inference.recipe import Recipe
from inference.trainable import TrainableLora, _Beside
from tests.inference.tiny import tiny_base


@pytest.mark.parametrize("trained", ["the adapter", "all weights"])
@pytest.mark.parametrize("tied", [True, False])
def test_losses_and_gradients_are_those_of_the_formula_however_many_logits_exist_at_once(
    tmp_path: Path, tied: bool, trained: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "HEAD_ROWS", 7)  # so that they come in several parts of unequal size
    model = load_gpt(tiny_base(tmp_path, tie_word_embeddings=tied), dtype=torch.float32).requires_grad_(trained == "all weights")
    lora = TrainableLora(model, Recipe(rank=4))
    for number, up in enumerate(lora.up):
        torch.nn.init.normal_(up, std=0.02, generator=torch.Generator().manual_seed(number))
    packed = batching.pack([Example(tuple(range(1, 20)), (True,) * 19), Example((5, 3, 9, 4), (False, False, True, True))])
    weights = torch.rand(len(packed.rows), generator=torch.Generator().manual_seed(0))  # each token's loss counts otherwise
    learned = [parameter for parameter in (*model.parameters(), *lora.parameters()) if parameter.requires_grad]

    ours = batching.losses(model, packed, lora)
    hidden = model(packed.tokens, packed.positions, CausalAttention(packed.lengths), lora)[packed.rows]
    formula = F.cross_entropy(model.logits(hidden), packed.targets, reduction="none")

    assert torch.allclose(ours, formula, atol=1e-5)
    for found, expected in zip(*(torch.autograd.grad((its * weights).sum(), learned) for its in (ours, formula)), strict=True):
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_norm_has_the_values_and_gradients_of_torchs_own() -> None:
    random = torch.Generator().manual_seed(0)
    x, weight = torch.randn(5, 3, 8, generator=random, requires_grad=True), torch.randn(8, generator=random)
    norm = RMSNorm(8, eps=1e-5)
    norm.weight.data = weight
    factors = torch.randn(5, 3, 8, generator=random)

    ours, torchs = norm(x), F.rms_norm(x, (8,), norm.weight, 1e-5)

    assert torch.allclose(ours, torchs, atol=1e-6)
    for found, expected in zip(*(torch.autograd.grad((its * factors).sum(), (x, norm.weight)) for its in (ours, torchs)), strict=True):
        assert torch.allclose(found, expected, atol=1e-5)


def test_an_adapter_beside_a_projection_has_the_gradients_of_its_formula() -> None:
    random = torch.Generator().manual_seed(0)
    x, y, a, b = (torch.randn(shape, generator=random, requires_grad=True) for shape in ((9, 6), (9, 5), (3, 6), (5, 3)))
    weights = torch.randn(9, 5, generator=random)
    ours, formula = _Beside.apply(x, y.clone(), a, b, 0.7), y + 0.7 * x @ a.t() @ b.t()

    assert torch.allclose(ours, formula, atol=1e-5)
    for found, expected in zip(*(torch.autograd.grad((its * weights).sum(), (x, y, a, b)) for its in (ours, formula)), strict=True):
        assert torch.allclose(found, expected, atol=1e-5)
