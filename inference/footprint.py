"""What an engine will take, before it is started, and in which numbers this machine computes well.

An engine's memory is the weights as they are kept, the keys and values of its cache, which are there from the start, what its
process needs beside them, and room for adapters, which is filled as they are asked for. `benchmarks/memory.py` measures how near that
comes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference import building
from inference.config import GPTConfig
from inference.naming import projection_shapes
from inference.protocol import FailureCode

DTYPE_BYTES = {"bfloat16": 2, "float32": 4, "int8": 1}  # of a number of a matrix
CACHE_BYTES = {"bfloat16": 2, "float32": 4, "int8": 2}  # of a number of a key or value
SCALE_BYTES = 6  # of an int8 row: its scale in float32 and in bfloat16
PROCESS_BYTES = 250 * 2**20  # Python, torch and its libraries, and what its allocator holds back: measured on CPU
PRODUCTS_BYTES = 40 * 2**20  # of oneDNN's products, as many as it keeps prepared (`inference.prepacked`): measured
RENDERERS = 2  # processes that make an engine's prompts: one for most, one for what takes its time (`inference.preparation`)
RENDERER_BYTES = 80 * 2**20  # of one of them, its share of common pages: measured
TOKENIZER_TIMES = 4  # memory of a tokenizer, in sizes of its file
RULE_VOCABULARY_BYTES = 900  # of a token, in the form that rules for answers need (`inference.grammars`): measured
LOGIT_COPIES = 4  # float32 numbers that a step and its sampling have for each entry of the vocabulary
ROWS = {"max_running": 32, "max_batch_tokens": 128}  # of a step, where the options do not say
CACHE_TOKENS = 16_384  # keys and values kept for all requests and prefixes of an engine together, where memory allows
LEAST_CACHE_TOKENS = 2048
ADAPTER_BYTES = 512 * 2**20  # of adapters that an engine keeps, where memory allows
STACK_BYTES = 640 * 2**20  # of the copies of them that torch computes with: 32 of rank 16 on all of SmolLM2-135M, in float32
ADAPTERS_SHARE = 4  # adapters get so much less of what is left than the cache may have
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
    if on_gpu(device, gpu=gpu):
        return "bfloat16"
    try:
        words = {word for line in cpu_info.read_text().splitlines() if line.startswith(("flags", "Features")) for word in line.split()}
    except OSError:
        return "float32"
    return "bfloat16" if words & BFLOAT16_FLAGS else "float32"


def on_gpu(device: str, *, gpu: Path = Path("/dev/nvidia0")) -> bool:
    """Whether an engine on `device` (cpu, cuda or auto) computes on a GPU."""
    return device.startswith("cuda") or (device == "auto" and gpu.exists())


def weights_bytes(config: GPTConfig, dtype: str) -> int:
    """The weights as they are kept in memory."""
    kept = config.parameter_count * DTYPE_BYTES[dtype]
    if dtype != "int8":
        return kept
    rows = sum(outs for outs, _ in projection_shapes(config).values()) + config.vocab_size * (1 if config.tied else 2)
    return kept + rows * SCALE_BYTES


def packed_bytes(config: GPTConfig, options: dict[str, Any]) -> int:
    """What packed products take besides the matrices (`inference.prepacked`): themselves, and the head a second time, since single
    rows of a packed one can't be read."""
    is_packed = options["dtype"] == "bfloat16" and options.get("device", "cpu") == "cpu" and native_dtype("cpu") == "bfloat16"
    if not is_packed or building.compiler() is not None:
        return 0
    return PRODUCTS_BYTES + config.vocab_size * config.hidden_size * DTYPE_BYTES["bfloat16"]


def cache_token_bytes(config: GPTConfig, dtype: str) -> int:
    """Keys and values of one token in all layers."""
    return 2 * config.layers * config.kv_heads * config.head_dim * CACHE_BYTES[dtype]


def adapter_room(options: dict[str, Any], *, left_bytes: int) -> dict[str, int]:
    """The options that bound an engine's adapters, for a part of the memory that is left at most. On a GPU it is the GPU's memory that
    has the copies, and the C++ path needs none.
    """
    wanted = {"adapter_bytes": options.get("adapter_bytes", ADAPTER_BYTES)}
    if not on_gpu(options.get("device", "cpu")) and building.compiler() is None:
        wanted["stack_bytes"] = options.get("stack_bytes", STACK_BYTES)
    most = max(left_bytes, 0) // ADAPTERS_SHARE
    return {name: min(size, most * size // max(sum(wanted.values()), 1)) for name, size in wanted.items()}


def beside_bytes(folder: Path, config: GPTConfig, options: dict[str, Any]) -> int:
    """What an engine's process takes beside weights and cache: itself, the vocabulary in two forms and the workspace of a step."""
    running, tokens = (options.get(name, usual) for name, usual in ROWS.items())
    logits_bytes = LOGIT_COPIES * 4 * running * config.vocab_size
    hidden_bytes = 4 * tokens * (4 * config.hidden_size + 2 * config.heads * config.head_dim + 3 * config.intermediate_size)
    vocabulary_bytes = tokenizer_bytes(folder) + RULE_VOCABULARY_BYTES * config.vocab_size
    return PROCESS_BYTES + vocabulary_bytes + logits_bytes + hidden_bytes


def renderers_bytes(folder: Path) -> int:
    """What the processes take that make the engine's prompts (`inference.renderer`), both of them running."""
    return RENDERERS * (RENDERER_BYTES + tokenizer_bytes(folder))


def tokenizer_bytes(folder: Path) -> int:
    path = Path(folder) / "tokenizer.json"
    return TOKENIZER_TIMES * path.stat().st_size if path.is_file() else 0


def fit(folder: Path, *, budget_bytes: int, options: dict[str, Any]) -> Footprint:
    """The engine's footprint with as much room for adapters and as large a key-value cache as the budget allows.

    Raises Unfit or UnsupportedModel.
    """
    config = GPTConfig.from_folder(folder)
    kept_bytes = weights_bytes(config, options["dtype"]) + packed_bytes(config, options)
    fixed_bytes = renderers_bytes(folder) + beside_bytes(folder, config, options) + kept_bytes
    token_bytes = cache_token_bytes(config, options["dtype"])
    left_bytes = budget_bytes - fixed_bytes
    if left_bytes < LEAST_CACHE_TOKENS * token_bytes:
        need_mb = (fixed_bytes + LEAST_CACHE_TOKENS * token_bytes) // 2**20
        raise Unfit(f"The base needs {need_mb} MB; this worker may use {budget_bytes // 2**20} MB (WORKER_MEMORY_BYTES).")
    adapters = adapter_room(options, left_bytes=left_bytes - LEAST_CACHE_TOKENS * token_bytes)
    left_bytes -= sum(adapters.values())
    most = min(options.get("cache_tokens", CACHE_TOKENS), left_bytes // token_bytes)
    return Footprint(fixed_bytes + sum(adapters.values()) + most * token_bytes, {**options, **adapters, "cache_tokens": most})


def fit_beside_server(folder: Path, *, budget_bytes: int, options: dict[str, Any]) -> Footprint:
    """The footprint of an engine whose model a server holds, in memory that is not this worker's. Raises Unfit."""
    need_bytes = PROCESS_BYTES + tokenizer_bytes(folder) + renderers_bytes(folder)
    if need_bytes > budget_bytes:
        raise Unfit(f"The engine needs {need_bytes // 2**20} MB; this worker may use {budget_bytes // 2**20} MB (WORKER_MEMORY_BYTES).")
    return Footprint(need_bytes, options)


def outlook(folder: Path) -> dict[str, Any]:
    """What is known of a base before it is loaded: its size, its context, and the memory it needs by dtype. Raises UnsupportedModel.

    The memory is that of an engine with its usual cache, without adapters.
    """
    config = GPTConfig.from_folder(folder)
    beside = renderers_bytes(folder) + beside_bytes(folder, config, {})
    return {
        "parameter_count": config.parameter_count,
        "context_length": config.context_length,
        "memory_bytes": {
            dtype: beside + weights_bytes(config, dtype) + CACHE_TOKENS * cache_token_bytes(config, dtype) for dtype in DTYPE_BYTES
        },
    }
