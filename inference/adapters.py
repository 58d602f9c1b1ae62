"""Writes what was trained as a PEFT folder: what `inference.lora` serves, and what PEFT loads with equal logits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file

from inference.config import GPTConfig
from inference.lora import CONFIG, WEIGHTS
from inference.training import LoraLinear, Settings


def save(parts: Mapping[str, LoraLinear], folder: Path, *, settings: Settings, base: str, config: GPTConfig) -> None:
    """`parts` by Hugging Face module name; `base` names the base for people and for PEFT."""
    tensors = {}
    for name, part in parts.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = part.a.detach().contiguous()
        tensors[f"base_model.model.{name}.lora_B.weight"] = part.b.detach().contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    described = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": config.architecture == "gpt2",  # Conv1D keeps its weight transposed
        "target_modules": sorted({name.rpartition(".")[2] for name in parts}),
        "inference_mode": True,
    }
    (folder / CONFIG).write_text(json.dumps(described, indent=2), encoding="utf-8")
