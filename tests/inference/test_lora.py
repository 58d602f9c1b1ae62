"""LoRA adapters beside PEFT's own, several in one batch, and the refusal of those that would answer wrongly."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from inference.attention import CausalAttention
from inference.checkpoint import load_gpt
from inference.config import GPTConfig
from inference.lora import Adapter, AdapterError, AdapterShelf, LoraBatch
from tests.inference.tiny import tiny_adapter, tiny_base, write_json

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def adapter(tmp_path: Path, base: Path) -> Path:
    return tiny_adapter(tmp_path / "adapter", base)


def peft_logits(base: Path, adapter: Path, tokens: torch.Tensor) -> torch.Tensor:
    model = peft.PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter).eval()
    with torch.inference_mode():
        logits: torch.Tensor = model(tokens[None]).logits[0]
    return logits


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True, "lora_alpha": 3}, {"rank": 16, "target_modules": ALL}])
@torch.inference_mode()
def test_an_adapter_gives_the_logits_peft_gives(base: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    folder = tiny_adapter(tmp_path / "adapter", base, **settings)
    tokens = torch.arange(30) * 7 % 448
    model = load_gpt(base, dtype=torch.float32)
    loaded = Adapter.load(folder, model.config)

    logits = model.logits(model(tokens, torch.arange(30), CausalAttention([30]), LoraBatch([(loaded, None)])))

    error = float((logits - peft_logits(base, folder, tokens)).abs().max())
    print(f"largest error of a logit {error:.1e}")  # noqa: T201
    assert error < 1e-4


@torch.inference_mode()
def test_gpt2_adapters_go_on_the_fused_projection(tmp_path: Path) -> None:
    settings = {"vocab_size": 97, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64, "bos_token_id": 1, "eos_token_id": 2}
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(**settings)).float()
    theirs.save_pretrained(tmp_path / "base")
    made = peft.get_peft_model(theirs, peft.LoraConfig(r=4, target_modules=["c_attn"], fan_in_fan_out=True, init_lora_weights=False))
    made.save_pretrained(tmp_path / "adapter")
    tokens = torch.arange(20)
    model = load_gpt(tmp_path / "base", dtype=torch.float32)
    loaded = Adapter.load(tmp_path / "adapter", model.config)

    logits = model.logits(model(tokens, torch.arange(20), CausalAttention([20]), LoraBatch([(loaded, None)])))

    assert (logits - peft_logits(tmp_path / "base", tmp_path / "adapter", tokens)).abs().max() < 1e-4


@torch.inference_mode()
def test_in_a_mixed_batch_each_row_has_its_own_adapter(base: Path, tmp_path: Path) -> None:
    model = load_gpt(base, dtype=torch.float32)
    first, second = (Adapter.load(tiny_adapter(tmp_path / str(n), base, seed=n, rank=4 * n), model.config) for n in (1, 2))
    tokens, positions = torch.arange(30) * 5 % 448, torch.cat([torch.arange(10)] * 3)
    groups = [(first, torch.arange(10, 20)), (second, torch.arange(20, 30))]

    mixed = model(tokens, positions, CausalAttention([10] * 3), LoraBatch(groups)).split(10)

    parts = zip(mixed, tokens.split(10), (None, LoraBatch([(first, None)]), LoraBatch([(second, None)])), strict=True)
    for together, part, lora in parts:
        alone = model(part, torch.arange(10), CausalAttention([10]), lora)
        assert (together - alone).abs().max() < 1e-4


def config_says(**changes: Any) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / "adapter_config.json"
        write_json(path, json.loads(path.read_text()) | changes)

    return apply


def weights_are(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        weights = load_file(folder / "adapter_model.safetensors")
        change(weights)
        save_file(weights, folder / "adapter_model.safetensors")

    return apply


A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (config_says(peft_type="IA3"), "peft_type must be LORA"),
        (config_says(use_dora=True), "DoRA is not supported"),
        (config_says(bias="all"), "bias='all' is not supported"),
        (config_says(modules_to_save=["lm_head"]), "modules_to_save"),
        (config_says(rank_pattern={"q_proj": 8}), "rank_pattern"),
        (config_says(init_lora_weights="pissa_niter_4"), "changes the base"),
        (config_says(r=8), r"has the shape \[.*\]; this base and rank 8 call for"),
        (config_says(r=0), "r is 0"),
        (config_says(r=10**9), "r is 1000000000"),
        (config_says(lora_alpha=float("inf")), "lora_alpha is inf"),
        (lambda f: (f / "adapter_config.json").write_text("{"), "cannot be read"),
        (lambda f: (f / "adapter_model.safetensors").unlink(), r"there is no adapter_model\.safetensors"),
        (lambda f: (f / "adapter_model.safetensors").write_bytes(b"\0" * 64), "not a whole safetensors file"),
        (weights_are(lambda w: w[A].fill_(float("nan"))), "not finite"),
        (weights_are(lambda w: w.pop(A)), "only one of lora_A and lora_B"),
        (weights_are(lambda w: w.update({A: torch.zeros(4, 32)})), r"has the shape \[4, 32\]"),
        (weights_are(lambda w: w.update({"base_model.model.lm_head.lora_A.weight": torch.zeros(4, 64)})), "not the LoRA of a projection"),
        (weights_are(lambda w: w.clear()), "holds no weights"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(base: Path, adapter: Path, spoil: Callable[[Path], None], said: str) -> None:
    spoil(adapter)

    with pytest.raises(AdapterError, match=said):
        Adapter.load(adapter, GPTConfig.from_folder(base))


def test_the_shelf_drops_the_longest_unused(base: Path, adapter: Path) -> None:
    one = Adapter.load(adapter, GPTConfig.from_folder(base))
    shelf = AdapterShelf(2 * one.size_bytes)
    shelf.put("a", one)
    shelf.put("b", one)
    shelf.get("a")

    shelf.put("c", one)

    assert [shelf.get(digest) is not None for digest in "abc"] == [True, False, True]
    assert shelf.size_bytes == 2 * one.size_bytes
