"""Writing a LoRA adapter as a PEFT folder, the form in which it is stored, served and taken elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from inference.config import GPTConfig
from inference.lora import CONFIG, WEIGHTS

PREFIX = "base_model.model."


def save(folder: Path, weights: Mapping[str, tuple[Tensor, Tensor]], *, config: GPTConfig, alpha: float, base: str) -> None:
    """Writes `folder` so that PEFT and `inference.lora.Adapter` load it.

    `weights` holds A [rank, in] and B [out, rank] by the projection's Hugging Face name; `base` names what it was trained on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (rank,) = {a.shape[0] for a, _ in weights.values()}
    tensors = {}
    for name, (a, b) in weights.items():
        tensors[f"{PREFIX}{name}.lora_A.weight"] = a.detach().cpu().contiguous()
        tensors[f"{PREFIX}{name}.lora_B.weight"] = b.detach().cpu().contiguous()
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "use_rslora": False,
        "use_dora": False,
        "fan_in_fan_out": config.architecture == "gpt2",  # its projections are Conv1D in transformers
        "target_modules": sorted({name.rpartition(".")[2] for name in weights}),
        "inference_mode": True,
    }
    (folder / CONFIG).write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
