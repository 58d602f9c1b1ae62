"""The model beside transformers' own, for every family; the error measured is printed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from inference.attention import CausalAttention, KeyValueStore, PagedAttention, Piece
from inference.checkpoint import load_gpt, save
from inference.config import GPTConfig
from inference.model import GPT, PART, PositionOutOfContext, best_of
from tests.inference.tiny import tiny_base, write_json

WINDOW = 16
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
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
GEMMA = SHAPE | {  # a query scale that is not that of the head size, and both kinds of layers
    "head_dim": 32,
    "query_pre_attn_scalar": 24,
    "sliding_window": WINDOW,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2Config", {"vocab_size": 97, "n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 128, "eos_token_id": 2}),
    "llama": ("LlamaConfig", SHAPE),
    "llama-llama3": ("LlamaConfig", SHAPE | {"rope_parameters": LLAMA3}),
    "llama-linear": ("LlamaConfig", SHAPE | {"rope_parameters": LINEAR}),
    "llama-wide-heads": ("LlamaConfig", SHAPE | {"head_dim": 32}),
    "llama-biased": ("LlamaConfig", SHAPE | {"attention_bias": True, "mlp_bias": True}),
    "smollm2": (
        "LlamaConfig",
        SHAPE | {"tie_word_embeddings": True, "num_attention_heads": 9, "num_key_value_heads": 3, "hidden_size": 144},
    ),
    "qwen2": ("Qwen2Config", SHAPE),
    "qwen2-tied": ("Qwen2Config", SHAPE | {"tie_word_embeddings": True}),
    "qwen2-window": ("Qwen2Config", SHAPE | {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1}),
    "qwen2-window-off": ("Qwen2Config", SHAPE | {"use_sliding_window": False, "sliding_window": WINDOW, "max_window_layers": 0}),
    "qwen3": ("Qwen3Config", SHAPE | {"head_dim": 32}),
    "qwen3-window-off": ("Qwen3Config", SHAPE | {"head_dim": 32, "use_sliding_window": False, "sliding_window": WINDOW}),
    "mistral": ("MistralConfig", SHAPE | {"sliding_window": WINDOW}),
    "mistral-whole": ("MistralConfig", SHAPE | {"sliding_window": None, "head_dim": 32}),
    "mistral-wide-heads": ("MistralConfig", SHAPE | {"sliding_window": WINDOW, "head_dim": 96}),
    "gemma3": ("Gemma3TextConfig", GEMMA),
    "gemma3-linear": (
        "Gemma3TextConfig",
        GEMMA
        | {"rope_parameters": {"full_attention": LINEAR, "sliding_attention": {"rope_type": "default", "rope_theta": 500.0}}}
        | {"tie_word_embeddings": False, "attention_bias": True},
    ),
}
WINDOWED = ("qwen2-window", "mistral", "mistral-wide-heads", "gemma3", "gemma3-linear")
ROTARY = tuple(family for family in FAMILIES if family != "gpt2")
LENGTHS = (50, 1, 23)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a random model of a family, as transformers saves it."""

    @cache
    def folder_of(family: str) -> Path:
        return random_model(family, tmp_path_factory.mktemp(family))

    return folder_of


def random_model(family: str, folder: Path) -> Path:
    """One whose norms and biases matter too, the same every time."""
    name, settings = FAMILIES[family]
    torch.manual_seed(0)
    save_random(transformers.AutoModelForCausalLM.from_config(getattr(transformers, name)(**settings)), folder)
    return folder


def save_random(theirs: Any, folder: Path) -> None:
    random = torch.Generator().manual_seed(0)
    for weight in theirs.float().parameters():
        weight.data.add_(torch.randn(weight.shape, generator=random) * 0.2)
    theirs.save_pretrained(folder)


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request: pytest.FixtureRequest, folders: Callable[[str], Path]) -> tuple[str, Any, GPT]:
    """A family's name, a random model of it in transformers, and ours from the same files."""
    return request.param, *both(folders(request.param))


def both(folder: Path) -> tuple[Any, GPT]:
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return theirs, load_gpt(folder, dtype=torch.float32)


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


def test_a_saved_checkpoint_gives_transformers_and_us_the_logits_it_was_saved_with(
    pair, folders: Callable[[str], Path], sequences: list[torch.Tensor], tmp_path: Path
) -> None:
    family, _, ours = pair
    with torch.no_grad():
        changed = {name: weight * 1.05 + 0.01 for name, weight in ours.named_parameters()}

    save(tmp_path / "saved", changed, source=folders(family))
    theirs, again = both(tmp_path / "saved")

    tokens, attention = sequences[0], CausalAttention([LENGTHS[0]])
    with torch.inference_mode():
        logits = again.logits(again(tokens, torch.arange(len(tokens)), attention))
    assert float((logits - logits_of(theirs, tokens)).abs().max()) < 1e-4
    for name, weight in again.named_parameters():
        torch.testing.assert_close(weight, changed[name], rtol=0, atol=1e-6)


@torch.inference_mode()
def test_steps_over_the_paged_cache_give_the_same_logits(pair, sequences: list[torch.Tensor]) -> None:
    family, theirs, ours = pair
    long, other = sequences[0], sequences[2]
    steps = [  # parts of both sequences as (start, count): chunks beside single tokens
        [(long, 0, 30, [7, 2, 9, 4]), (other, 0, 1, [1, 3])],
        [(long, 30, 1, [7, 2, 9, 4]), (other, 1, 20, [1, 3])],
        [(long, 31, 19, [7, 2, 9, 4])],
        [(other, 21, 1, [1, 3])],
        [(other, 22, 1, [1, 3])],
    ]

    got = paged_logits(ours, steps)

    error = max(float((got[len(s)] - logits_of(theirs, s)).abs().max()) for s in (long, other))
    print(f"{family}: largest error of a logit {error:.1e}")  # noqa: T201
    assert error < 1e-4


@pytest.mark.parametrize("family", WINDOWED)
@pytest.mark.parametrize(
    "counts",
    [
        (WINDOW - 3, 6, 31),  # a chunk that begins inside the first window and ends outside
        (WINDOW, 1, 1, 32),  # up to the edge, over it token by token
        (WINDOW + 1, 33),  # the edge inside the first chunk
        (40, 1, 1, 1, 1, 6),  # decoding far beyond it
    ],
)
@torch.inference_mode()
def test_chunks_across_the_edge_of_a_window_give_the_same_logits(
    family: str, counts: tuple[int, ...], folders: Callable[[str], Path], sequences: list[torch.Tensor]
) -> None:
    theirs, ours = both(folders(family))
    starts = [sum(counts[:number]) for number in range(len(counts))]

    got = paged_logits(ours, [[(sequences[0], start, count, [5, 1, 8, 6])] for start, count in zip(starts, counts, strict=True)])

    assert (got[50] - logits_of(theirs, sequences[0])).abs().max() < 1e-4


def paged_logits(ours: GPT, steps: list[list[tuple[torch.Tensor, int, int, list[int]]]]) -> dict[int, torch.Tensor]:
    """Logits of each sequence, by its length. A step has parts of sequences: (sequence, start, count, blocks)."""
    store = KeyValueStore(ours.config, blocks=12, block_size=16, dtype=torch.float32, device=torch.device("cpu"))
    got: dict[int, list[torch.Tensor]] = {}
    for step in steps:
        attention = PagedAttention(store, [Piece(start, count, blocks) for _, start, count, blocks in step])
        tokens = torch.cat([sequence[start : start + count] for sequence, start, count, _ in step])
        positions = torch.cat([torch.arange(start, start + count) for _, start, count, _ in step])
        logits = ours.logits(ours(tokens, positions, attention)).split([count for _, _, count, _ in step])
        for (sequence, *_), part in zip(step, logits, strict=True):
            got.setdefault(len(sequence), []).append(part)
    return {length: torch.cat(parts) for length, parts in got.items()}


@pytest.mark.parametrize("family", ROTARY)
@torch.inference_mode()
def test_a_config_in_the_old_style_gives_the_logits_transformers_gives_with_it(
    family: str, folders: Callable[[str], Path], sequences: list[torch.Tensor], tmp_path: Path
) -> None:
    shutil.copy(folders(family) / "model.safetensors", tmp_path)
    raw = json.loads((folders(family) / "config.json").read_text())
    write_json(tmp_path / "config.json", in_old_style(raw))

    theirs, ours = both(tmp_path)

    logits = ours.logits(ours(sequences[0], torch.arange(50), CausalAttention([50])))
    assert (logits - logits_of(theirs, sequences[0])).abs().max() < 1e-4
    assert ours.config == GPTConfig.from_json(raw)


def in_old_style(raw: dict[str, Any]) -> dict[str, Any]:
    """A config.json as transformers 4 wrote it."""
    raw = deepcopy(raw)
    rope = raw.pop("rope_parameters")
    raw["torch_dtype"] = raw.pop("dtype")
    if raw["model_type"] == "gemma3_text":
        raw["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
    else:
        raw.pop("layer_types", None)
    raw["rope_theta"] = rope.pop("rope_theta")
    raw["rope_scaling"] = None if rope["rope_type"] == "default" else rope
    return raw


@torch.inference_mode()
def test_the_text_part_of_a_gemma_that_sees_pictures_is_read(tmp_path: Path, sequences: list[torch.Tensor]) -> None:
    sees = {
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "hidden_size": 32,
        "intermediate_size": 32,
        "image_size": 28,
        "patch_size": 14,
    }
    config = transformers.Gemma3Config(text_config=GEMMA, vision_config=sees, mm_tokens_per_image=4, image_token_index=96)
    save_random(transformers.Gemma3ForConditionalGeneration(config), tmp_path)

    theirs, ours = transformers.Gemma3ForConditionalGeneration.from_pretrained(tmp_path).eval(), load_gpt(tmp_path, dtype=torch.float32)

    text = sequences[0].clamp(max=95)
    logits = ours.logits(ours(text, torch.arange(50), CausalAttention([50])))
    assert (logits - logits_of(theirs, text)).abs().max() < 1e-4
    assert set(ours.projections()) <= {name for name, _ in theirs.named_modules()}


@pytest.mark.parametrize("positions", [[127, 128], [-1, 0]])
def test_a_position_outside_the_context_is_refused_by_number(positions: list[int], folders: Callable[[str], Path]) -> None:
    for family in ("gpt2", "llama"):
        model = load_gpt(folders(family), dtype=torch.float32)

        with pytest.raises(PositionOutOfContext, match=r"position (128|-1) is outside the model's context of 128"):
            model(torch.tensor([1, 2]), torch.tensor(positions), CausalAttention([2]))


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
    model = load_gpt(tiny_base(tmp_path), dtype=torch.bfloat16)
    hidden = torch.randn(8, 64, generator=torch.Generator().manual_seed(0)) * 3
    exact = hidden @ model.head.weight.float().t()

    sharp = model.sharp_logits(hidden)

    assert torch.equal(sharp.argmax(-1), exact.argmax(-1))
    assert (sharp.topk(32).values - exact.topk(32).values).abs().max() < 1e-4


@pytest.mark.parametrize("size", [30, 5_000, 49_152])
def test_the_best_logits_are_those_of_a_sorted_row(size: int) -> None:
    logits = torch.randn(3, size, generator=torch.Generator().manual_seed(size))
    logits[0, -9:] += 9  # behind the last whole part
    logits[1, :PART] += 9  # more in one part than are asked for

    found = best_of(logits, 8)

    assert torch.equal(found.sort().values, logits.topk(8).indices.sort().values)
