"""Requests to an engine on a tiny model, and what became of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from inference.checkpoint import load_gpt
from inference.engine import EngineCore
from inference.engine_options import EngineOptions
from inference.model import GPT
from inference.protocol import Delta, Finished, GenerationRequest, Started
from inference.runner import Runner
from inference.sampling_params import SamplingParams
from inference.tokenizer import Tokenizer

PROMPTS = ("Hello!", "What is the capital of France?", "你好", "Tell me " * 40, "a" * 90, "rate it", "😀", "Water boils")


def an_engine(folder: Path, **options: Any) -> EngineCore:
    return EngineCore.load(folder, EngineOptions(**{"dtype": "float32", "cache_tokens": 4096} | options))


def an_engine_with(folder: Path, run_with: Callable[[GPT, int], Runner], **options: Any) -> EngineCore:
    chosen = EngineOptions(**{"dtype": "float32", "cache_tokens": 4096} | options)
    return EngineCore(load_gpt(folder, dtype=torch.float32), Tokenizer.from_folder(folder), chosen, run_with=run_with)


_numbers = iter(range(10**9))


def a_request(text: str = "Hello!", **fields: Any) -> GenerationRequest:
    """Fields of the request, or of its sampling."""
    sampling = {name: fields.pop(name) for name in list(fields) if name in SamplingParams.__dataclass_fields__}
    defaults = {
        "id": f"req_{next(_numbers)}",
        "base": "base",
        "version": "version",
        "tenant": "tenant",
        "messages": [{"role": "user", "content": text}],
        "deadline": time.time() + 600,
        "sampling": SamplingParams(**{"temperature": 0.0, "max_tokens": 24} | sampling).to_json(),
    }
    return GenerationRequest(**defaults | fields)


class Outcome:
    """What a request's events say."""

    def __init__(self, events: list[Any]) -> None:
        self.started: Started = events[0]
        self.deltas: list[Delta] = events[1:-1]
        self.finished: Finished = events[-1]
        self.text = "".join(delta.text for delta in self.deltas)


def run(engine: EngineCore, *requests: GenerationRequest, **submit: Any) -> list[Outcome]:
    return outcomes(run_all(engine, *requests, **submit), requests)


def run_all(engine: EngineCore, *requests: GenerationRequest, **submit: Any) -> list[tuple[str, Any]]:
    for request in requests:
        engine.submit(request, **submit)
    return finish(engine)


def finish(engine: EngineCore) -> list[tuple[str, Any]]:
    events = []
    while engine.has_work:
        events += engine.step()
    return events


def outcomes(events: list[tuple[str, Any]], requests: Iterable[GenerationRequest]) -> list[Outcome]:
    return [Outcome([event for id_, event in events if id_ == request.id]) for request in requests]


def texts(found: list[Outcome]) -> list[str]:
    return [outcome.text for outcome in found]
