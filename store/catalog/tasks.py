"""The store's tasks about the catalogue. Thin callers."""

from __future__ import annotations

from celery import shared_task
from django.core.cache import cache

from store.catalog.search import documents

_PLACE = "search:rerank"


@shared_task(name="store.catalog.refresh_stale")
def refresh_stale() -> int:
    return documents.refresh_stale()


@shared_task(name="store.catalog.rerank")
def rerank() -> None:
    """The next piece of the round; whoever loses the place begins again."""
    cache.set(_PLACE, documents.rerank(after=int(cache.get(_PLACE) or 0)), timeout=None)
