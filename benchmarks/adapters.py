"""Adapters to measure with: PEFT folders of any number, all different, on all seven linears of a Llama checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

RANK = 16
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
NOISE = 2**22 + 1  # numbers drawn once; every matrix is a stretch of them that begins elsewhere


def adapter_folders(base: Path, count: int, cache: Path) -> list[Path]:
    """`count` folders of random adapters for the checkpoint in `base`, written when they are not there yet; 10 MB each for SmolLM2-135M."""
    folders = [cache / f"{base.name}-rank{RANK}" / f"adapter{number:04}" for number in range(count)]
    missing = [number for number, folder in enumerate(folders) if not (folder / "adapter_config.json").exists()]
    if missing:
        shapes = _linear_shapes(base / "model.safetensors")
        noise = torch.randn(NOISE, generator=torch.Generator().manual_seed(0)).mul_(0.02).to(torch.bfloat16)
        for number in missing:
            _write(folders[number], shapes, noise, number)
    return folders


def adapter_numbers(base: Path) -> int:
    """How many numbers one of them has."""
    return sum(RANK * (outs + ins) for outs, ins in _linear_shapes(base / "model.safetensors").values())


def _linear_shapes(weights: Path) -> dict[str, tuple[int, int]]:
    """Module name -> (out, in)."""
    with safe_open(weights, framework="pt") as opened:
        modules = {name.removesuffix(".weight"): opened.get_slice(name).get_shape() for name in opened.keys()}  # noqa: SIM118 - not a mapping
    return {module: (shape[0], shape[1]) for module, shape in modules.items() if module.endswith(LINEARS)}


def _write(folder: Path, shapes: dict[str, tuple[int, int]], noise: Tensor, number: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    starts = torch.Generator().manual_seed(number + 1)
    tensors = {}
    for module, (outs, ins) in shapes.items():
        for side, shape in (("A", (RANK, ins)), ("B", (outs, RANK))):
            size = shape[0] * shape[1]
            start = int(torch.randint(len(noise) - size, (1,), generator=starts))
            tensors[f"base_model.model.{module}.lora_{side}.weight"] = noise[start : start + size].view(shape).clone()
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "benchmark",
        "r": RANK,
        "lora_alpha": RANK,
        "target_modules": list(LINEARS),
        "bias": "none",
        "inference_mode": True,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
