"""The GPT core and its Celery workers. Importing the package loads nothing heavy: `Engine` and its like come when asked for.

from inference import Engine, SamplingParams
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "Engine": "inference.library",
    "Form": "inference.sampling_params",
    "Grammar": "inference.sampling_params",
    "SamplingParams": "inference.sampling_params",
    "EngineCore": "inference.engine",
    "EngineOptions": "inference.engine_options",
    "RequestRefused": "inference.engine",
    "GPT": "inference.model",
    "GPTConfig": "inference.config",
    "Tokenizer": "inference.tokenizer",
    "outlook": "inference.footprint",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
