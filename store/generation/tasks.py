"""What workers report of generations, and the clean-up after what they could not report."""

from __future__ import annotations

from typing import Any

from inference.protocol import GENERATION_FINISHED, Finished
from store.celery import app
from store.generation import settlement


@app.task(name=GENERATION_FINISHED)
def finished(message: dict[str, Any]) -> None:
    settlement.finish(Finished.from_json(message))


@app.task(name="store.generation.void_stale")
def void_stale() -> None:
    settlement.void_stale()
