"""What an engine will take, before it is started, and in which numbers this machine computes well."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.config import GPTConfig
from inference.protocol import FailureCode

DTYPE_BYTES = {"bfloat16": 2, "float32": 4}
PROCESS_BYTES = 400 * 2**20  # Python, torch, transformers and the workspace of a step: 340 MiB measured on CPU
CACHE_TOKENS = 16_384  # keys and values kept for all requests and prefixes of an engine together, where memory allows
LEAST_CACHE_TOKENS = 2048
BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})  # x86 and ARM, as Linux names them


class Unfit(Exception):
    """There is no room for this base; `code` says whether it will ever fit."""

    def __init__(self, message: str, *, code: FailureCode = FailureCode.BASE_UNAVAILABLE) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Footprint:
    """What an engine takes, and the options under which it takes no more."""

    bytes: int
    options: dict[str, Any]


def native_dtype(device: str = "auto", *, cpu_info: Path = Path("/proc/cpuinfo"), gpu: Path = Path("/dev/nvidia0")) -> str:
    """bfloat16 where there are instructions for it, else float32. `device` is cpu, cuda or auto.

    Emulated, bfloat16 took 1.85 s for a prompt of 110 tokens that took 0.43 s in float32 (SmolLM2-135M, 2 cores with AVX2).
    """
    if device.startswith("cuda") or (device == "auto" and gpu.exists()):
        return "bfloat16"
    try:
        words = {word for line in cpu_info.read_text().splitlines() if line.startswith(("flags", "Features")) for word in line.split()}
    except OSError:
        return "float32"
    return "bfloat16" if words & BFLOAT16_FLAGS else "float32"


def fit(folder: Path, *, budget_bytes: int, options: dict[str, Any]) -> Footprint:
    """The engine's footprint with as large a key-value cache as the budget allows. Raises Unfit or UnsupportedModel."""
    config = GPTConfig.from_folder(folder)
    number_bytes = DTYPE_BYTES[options["dtype"]]
    fixed_bytes = PROCESS_BYTES + config.parameter_count * number_bytes
    token_bytes = 2 * config.layers * config.kv_heads * config.head_dim * number_bytes
    most = min(options.get("cache_tokens", CACHE_TOKENS), max((budget_bytes - fixed_bytes) // token_bytes, 0))
    if most < LEAST_CACHE_TOKENS:
        need_mb = (fixed_bytes + LEAST_CACHE_TOKENS * token_bytes) // 2**20
        raise Unfit(f"The base needs {need_mb} MB; this worker may use {budget_bytes // 2**20} MB (WORKER_MEMORY_BYTES).")
    return Footprint(fixed_bytes + most * token_bytes, {**options, "cache_tokens": most})
