"""The model beside transformers' own, for every family; the error measured is printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from inference.attention import CausalAttention, KeyValueStore, PagedAttention, Piece
from inference.checkpoint import load_gpt
from inference.model import GPT

SHAPE = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2Config", {"vocab_size": 97, "n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 128, "eos_token_id": 2}),
    "llama": ("LlamaConfig", SHAPE),
    "llama-llama3": ("LlamaConfig", SHAPE | {"rope_parameters": LLAMA3}),
    "llama-linear": ("LlamaConfig", SHAPE | {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}}),
    "llama-biased": ("LlamaConfig", SHAPE | {"attention_bias": True, "mlp_bias": True}),
    "smollm2": (
        "LlamaConfig",
        SHAPE | {"tie_word_embeddings": True, "num_attention_heads": 9, "num_key_value_heads": 3, "hidden_size": 144},
    ),
    "qwen2": ("Qwen2Config", SHAPE),
    "qwen3": ("Qwen3Config", SHAPE | {"head_dim": 32}),
    "mistral": ("MistralConfig", SHAPE | {"sliding_window": 16}),
    "mistral-whole": ("MistralConfig", SHAPE | {"sliding_window": None}),
}
LENGTHS = (50, 1, 23)


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any, GPT]:
    """A family's name, a random model of it in transformers, and ours from the same files."""
    name, settings = FAMILIES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    theirs = transformers.AutoModelForCausalLM.from_config(getattr(transformers, name)(**settings)).float().eval()
    for weight in theirs.parameters():
        weight.data.add_(torch.randn_like(weight) * 0.2)
    theirs.save_pretrained(folder)
    return request.param, theirs, load_gpt(folder, dtype=torch.float32)


@pytest.fixture(scope="module")
def sequences() -> list[torch.Tensor]:
    return [torch.randint(0, 97, (length,), generator=torch.Generator().manual_seed(length)) for length in LENGTHS]


def logits_of(theirs: Any, tokens: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = theirs(tokens[None]).logits[0]
    return logits


@torch.inference_mode()
def test_packed_sequences_give_the_logits_transformers_gives_each_alone(pair, sequences: list[torch.Tensor]) -> None:
    family, theirs, ours = pair
    positions = torch.cat([torch.arange(length) for length in LENGTHS])

    logits = ours.logits(ours(torch.cat(sequences), positions, CausalAttention(LENGTHS)))

    error = max(float((a - logits_of(theirs, b)).abs().max()) for a, b in zip(logits.split(LENGTHS), sequences, strict=True))
    print(f"{family}: largest error of a logit {error:.1e}")  # noqa: T201
    assert error < 1e-4


@torch.inference_mode()
def test_steps_over_the_paged_cache_give_the_same_logits(pair, sequences: list[torch.Tensor]) -> None:
    family, theirs, ours = pair
    store = KeyValueStore(ours.config, blocks=12, block_size=16, dtype=torch.float32, device=torch.device("cpu"))
    long, other = sequences[0], sequences[2]
    steps = [  # parts of both sequences as (start, count): chunks beside single tokens
        [(long, 0, 30, [7, 2, 9, 4]), (other, 0, 1, [1, 3])],
        [(long, 30, 1, [7, 2, 9, 4]), (other, 1, 20, [1, 3])],
        [(long, 31, 19, [7, 2, 9, 4])],
        [(other, 21, 1, [1, 3])],
        [(other, 22, 1, [1, 3])],
    ]

    got: dict[int, list[torch.Tensor]] = {len(long): [], len(other): []}
    for step in steps:
        attention = PagedAttention(store, [Piece(start, count, blocks) for _, start, count, blocks in step])
        tokens = torch.cat([sequence[start : start + count] for sequence, start, count, _ in step])
        positions = torch.cat([torch.arange(start, start + count) for _, start, count, _ in step])
        logits = ours.logits(ours(tokens, positions, attention)).split([count for _, _, count, _ in step])
        for (sequence, *_), part in zip(step, logits, strict=True):
            got[len(sequence)].append(part)

    error = max(float((torch.cat(got[len(s)]) - logits_of(theirs, s)).abs().max()) for s in (long, other))
    print(f"{family}: largest error of a logit {error:.1e}")  # noqa: T201
    assert error < 1e-4


def test_gradients_reach_every_projection(pair, sequences: list[torch.Tensor]) -> None:
    _, _, ours = pair
    for weight in ours.parameters():
        weight.requires_grad_(True)

    hidden = ours(sequences[0], torch.arange(LENGTHS[0]), CausalAttention([LENGTHS[0]]))
    ours.logits(hidden).logsumexp(-1).sum().backward()

    assert all(module.weight.grad is not None and module.weight.grad.abs().sum() > 0 for module in ours.projections().values())
    ours.requires_grad_(False)
    ours.zero_grad(set_to_none=True)


def test_projections_have_the_names_transformers_gives_them(pair) -> None:
    _, theirs, ours = pair

    named = {name: tuple(module.weight.shape) for name, module in ours.projections().items()}

    modules = dict(theirs.named_modules())
    for name, shape in named.items():
        weight = modules[name].weight
        assert shape == tuple(weight.shape) or shape == tuple(weight.t().shape)
    assert sum(weight.numel() for weight in ours.parameters()) == ours.config.parameter_count == theirs.num_parameters()


@torch.inference_mode()
def test_bfloat16_chooses_between_logits_that_it_could_not_tell_apart(tmp_path: Path) -> None:
    from tests.inference.tiny import tiny_base

    model = load_gpt(tiny_base(tmp_path), dtype=torch.bfloat16)
    hidden = torch.randn(8, 64, generator=torch.Generator().manual_seed(0)) * 3
    exact = hidden @ model.head.weight.float().t()

    sharp = model.sharp_logits(hidden)

    assert torch.equal(sharp.argmax(-1), exact.argmax(-1))
    assert (sharp.topk(32).values - exact.topk(32).values).abs().max() < 1e-4
