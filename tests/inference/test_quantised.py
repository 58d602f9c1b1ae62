"""Matrices in int8: near to what they were, the same by every path, and good enough on real text."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from torch import nn

from inference.attention import CausalAttention
from inference.checkpoint import load_gpt
from inference.config import GPTConfig
from inference.engine import EngineCore
from inference.engine_options import EngineOptions
from inference.evaluation import paragraphs
from inference.model import GPT
from inference.protocol import Finished, FinishReason, GenerationRequest
from inference.quantised import FEW_ROWS, Int8Embedding, Int8Linear, quantise
from inference.sampling_params import SamplingParams
from inference.tokenizer import Tokenizer
from tests.inference.tiny import tiny_base

MOST_KL = 0.01


def test_a_weight_is_off_by_at_most_half_a_step_of_its_row() -> None:
    weight = torch.randn(50, 64, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 3, 50)[:, None]

    whole, scale = quantise(weight)

    # A scale that was rounded down to what bfloat16 holds leaves the largest weight just outside the last step.
    steps = (whole * scale[:, None] - weight).abs() / scale[:, None]
    assert steps.max() < 0.75
    assert steps[whole.abs() < 127].max() <= 0.5 + 1e-4
    assert torch.equal(scale, scale.bfloat16().float())


def test_rows_of_zeros_stay_zeros() -> None:
    whole, scale = quantise(torch.tensor([[0.0, 0.0], [1.0, -2.0]]))

    assert whole.tolist() == [[0, 0], [64, -127]] or whole.tolist() == [[0, 0], [63, -127]]
    assert scale.isfinite().all()


def test_a_large_matrix_is_turned_part_by_part_into_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, x = torch.randn(50, 64), torch.randn(FEW_ROWS + 1, 64)
    whole, scale = quantise(weight)
    at_once = Int8Linear(weight)(x)

    monkeypatch.setattr("inference.quantised.BLOCK_NUMBERS", 7 * 64)
    parts, scale_of_parts = quantise(weight)

    assert torch.equal(parts, whole)
    assert torch.equal(scale_of_parts, scale)
    assert torch.allclose(Int8Linear(weight)(x), at_once, atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 7, FEW_ROWS, FEW_ROWS + 1, 100])
@pytest.mark.parametrize(("outs", "ins"), [(7, 5), (97, 64), (3, 1), (1, 576), (49, 1000), (33, 96)])
@pytest.mark.parametrize("biased", [False, True])
def test_few_rows_and_many_give_the_product_written_out(count: int, outs: int, ins: int, biased: bool) -> None:
    random = torch.Generator().manual_seed(count)
    bias = torch.randn(outs, generator=random) if biased else None
    linear = Int8Linear(torch.randn(outs, ins, generator=random), bias)
    x = torch.randn(count, ins, generator=random).bfloat16()

    y = linear(x)

    exact = x.double() @ (linear.weight.double() * linear.scale.double()[:, None]).t() + (0 if bias is None else bias.double())
    assert y.dtype == torch.bfloat16
    assert (y.double() - exact).abs().max() < 0.01 * max(exact.abs().max(), 1)


def test_float32_rows_are_multiplied_in_float32() -> None:
    linear, x = Int8Linear(torch.randn(9, 16)), torch.randn(3, 16)

    y = linear(x)

    assert y.dtype == torch.float32
    assert torch.allclose(y, x @ (linear.weight * linear.scale[:, None]).t(), atol=1e-5)


def test_an_embedding_gives_its_rows() -> None:
    weight = torch.randn(20, 8)
    embedding = Int8Embedding(weight)

    rows = embedding(torch.tensor([[3, 0], [19, 3]]))

    assert rows.shape == (2, 2, 8)
    assert torch.allclose(rows, weight[torch.tensor([[3, 0], [19, 3]])], atol=0.02)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_word_embeddings": True},
        {"attention_bias": True, "mlp_bias": True},
        {"model_type": "gemma3_text", "hidden_activation": "gelu_pytorch_tanh", "sliding_window": 16, "tie_word_embeddings": True},
    ],
)
@torch.inference_mode()
def test_a_whole_model_in_int8_is_near_to_itself_in_float32(tmp_path: Path, changes: dict[str, object]) -> None:
    folder = tiny_base(tmp_path, **changes)
    tokens, positions = torch.arange(3, 43), torch.arange(40)

    exact, near = load_gpt(folder, dtype=torch.float32), load_gpt(folder, dtype=torch.int8)

    assert near.dtype == torch.bfloat16
    assert not any(isinstance(module, nn.Linear | nn.Embedding) for module in near.modules())
    assert set(near.projections()) == set(exact.projections())
    a, b = (model(tokens, positions, CausalAttention([40])) for model in (exact, near))
    assert torch.nn.functional.cosine_similarity(a, b).min() > 0.99
    assert (near.sharp_logits(b).argmax(-1) == near.logits(b).float().argmax(-1)).float().mean() > 0.9
    assert weight_bytes(near) < 0.3 * weight_bytes(exact)


def weight_bytes(model: GPT) -> int:
    return sum(tensor.nbytes for tensor in [*model.parameters(), *model.buffers()])


def test_an_engine_answers_in_int8(tmp_path: Path) -> None:
    engine = EngineCore.load(tiny_base(tmp_path), EngineOptions(dtype="int8", cache_tokens=512))

    engine.submit(
        GenerationRequest(
            id="req",
            base="base",
            version="version",
            tenant="tenant",
            messages=[{"role": "user", "content": "Hello!"}],
            sampling=SamplingParams(max_tokens=8, temperature=0.0).to_json(),
            deadline=time.time() + 600,
        )
    )
    events = []
    while engine.has_work:
        events += [event for _, event in engine.step()]

    assert isinstance(events[-1], Finished)
    assert events[-1].reason == FinishReason.LENGTH
    assert events[-1].usage["completion_tokens"] == 8
    assert engine.stats()["dtype"] == "int8"


@pytest.mark.real_model
@torch.inference_mode()
def test_the_real_model_in_int8_is_near_to_float32_on_real_text(smollm2_folder: Path) -> None:
    tokenizer = Tokenizer.from_folder(smollm2_folder)
    tokens = torch.tensor([min(tokenizer.eos_ids), *tokenizer.encode(" ".join(paragraphs()[:3]))])
    assert len(tokens) < GPTConfig.from_folder(smollm2_folder).context_length

    found = []
    for dtype in (torch.float32, torch.int8):
        model = load_gpt(smollm2_folder, dtype=dtype)
        hidden = model(tokens, torch.arange(len(tokens)), CausalAttention([len(tokens)]))
        found.append(model.logits(hidden).float().log_softmax(-1))
    exact, near = found

    divergence = float((exact.exp() * (exact - near)).sum(-1).mean())
    agreement = float((exact.argmax(-1) == near.argmax(-1)).float().mean())
    print(f"KL {divergence:.4f}, argmax agreement {agreement:.3f}")  # noqa: T201
    assert divergence <= MOST_KL
    assert agreement > 0.9
