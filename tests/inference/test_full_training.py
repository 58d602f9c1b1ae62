"""Training all weights: what it learns, and that the result is a checkpoint like any other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from inference.attention import CausalAttention
from inference.checkpoint import load_gpt
from inference.trainable import TrainableWeights
from inference.training import run
from tests.inference.job_bench import Place, Told

ALL = {"scope": "weights", "learning_rate": 2e-3}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    torch.set_num_threads(1)
    return Place(tmp_path)


def test_the_loss_falls_and_transformers_reads_the_result(place: Place, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    result = run(place.finetune(changes=ALL), place.bench(Told(), segment_s=60))
    folder, base = place.artifacts.materialise(result["manifest"], place.cache), tmp_path / "base"
    tokens, positions, attention = torch.arange(5, 60), torch.arange(55), CausalAttention([55])

    with torch.no_grad():
        theirs = AutoModelForCausalLM.from_pretrained(folder)(tokens[None]).logits[0]
        ours, bare = (
            model.logits(model(tokens, positions, attention)) for model in (load_gpt(f, dtype=torch.float32) for f in (folder, base))
        )

    assert result["validation_loss"] < result["base_validation_loss"] - 0.3
    assert (result["scope"], result["trained_parameters"]) == (
        "weights",
        sum(p.numel() for p in load_gpt(base, dtype=torch.float32).parameters()),
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert (ours - bare).abs().max() > 0.1
    assert AutoTokenizer.from_pretrained(folder).chat_template == AutoTokenizer.from_pretrained(base).chat_template


def test_steps_too_small_for_16_bits_are_not_lost(tmp_path: Path) -> None:
    place = Place(tmp_path)
    model = load_gpt(place.folder / "base", dtype=torch.bfloat16)
    trainable = TrainableWeights(model)
    before = model.embedding.weight.detach().clone()
    optimiser = torch.optim.SGD(trainable.parameters(), lr=1e-4)

    def step() -> None:
        model.embedding.weight.grad = torch.ones_like(model.embedding.weight)
        trainable.before_step()
        optimiser.step()
        trainable.after_step()

    step()
    unmoved = float((model.embedding.weight == before).float().mean())
    for _ in range(500):
        step()

    assert unmoved > 0.5
    assert all(parameter.dtype == torch.float32 for parameter in trainable.parameters())
    torch.testing.assert_close(model.embedding.weight.float(), before.float() - 0.0501, rtol=1e-2, atol=2e-3)
