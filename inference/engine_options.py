"""What an engine is told when it begins: in which numbers it computes, and the sizes it keeps to."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from inference.footprint import ADAPTER_BYTES, STACK_BYTES

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32, "int8": torch.int8}


@dataclass(frozen=True)
class EngineOptions:
    """Sizes and numbers of an engine."""

    dtype: str = "bfloat16"  # or "float32" or "int8": what the matrices are kept in
    device: str = "cpu"
    cache_tokens: int = 16_384  # that the block pool holds, for all requests together
    max_batch_tokens: int = 128  # computed in one step: half a second of SmolLM2-135M on one core, which others wait for
    batch_beside: int | None = None  # of those for batch requests, in a step that people wait for; None: 2 on a processor, else all
    max_running: int = 32
    max_waiting: int = 64  # from here on it says that it has no room: as many as a worker gives, so that batches take nobody's place
    adapter_bytes: int = ADAPTER_BYTES  # of adapters kept in memory
    stack_bytes: int = STACK_BYTES  # of the copies of them that torch computes with; the C++ path needs none
    lookahead: int = 8  # tokens guessed and checked in one step of a single stream; 0: none
    name: str = "engine"

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype is {self.dtype!r}; it must be one of {', '.join(DTYPES)}")
