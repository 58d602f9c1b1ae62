"""What the store's worker does for the arena. Thin callers of the acts."""

from __future__ import annotations

from celery import shared_task

from store.playground.arena import standings


@shared_task(name="store.playground.rate_arena")
def rate_arena() -> None:
    standings.compute()
