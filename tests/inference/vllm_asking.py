"""Asking an engine that stands before the stand-in for a vLLM server."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inference.protocol import GenerationRequest
from inference.vllm_engine import VllmEngine, VllmOptions
from tests.inference.asking import Outcome
from tests.inference.vllm_fake import KEY, VllmFake

END = 2  # the tiny base's end-of-text token


def engine_at(fake: VllmFake, base: Path, **options: Any) -> VllmEngine:
    return VllmEngine.load(base, VllmOptions(fake.url, KEY, **options))


def answered(engine: VllmEngine, request: GenerationRequest, **submit: Any) -> Outcome:
    engine.submit(request, **submit)
    return Outcome([event for _, event in within_time(engine)])


def within_time(engine: VllmEngine, *, until: Callable[[list[Any]], bool] | None = None) -> list[tuple[str, Any]]:
    """The events up to the end of all requests, or until what came is enough."""
    deadline, events = time.monotonic() + 30, []
    while engine.has_work and not (until and until([event for _, event in events])):
        assert time.monotonic() < deadline, f"no end within 30 s: {events}"
        events += engine.step()
    return events
