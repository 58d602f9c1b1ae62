"""The store's tasks about the catalogue. Thin callers of the acts."""

from __future__ import annotations

import logging

from celery import shared_task
from django.core.cache import cache

from store.catalog import announcing, collecting, views
from store.catalog.search import documents, heading

log = logging.getLogger(__name__)

_PLACE = "search:rerank"


@shared_task(name="store.catalog.refresh_stale")
def refresh_stale() -> int:
    return documents.refresh_stale()


@shared_task(name="store.catalog.rerank")
def rerank() -> None:
    """The next piece of the round; whoever loses the place begins again."""
    cache.set(_PLACE, documents.rerank(after=int(cache.get(_PLACE) or 0)), timeout=None)


@shared_task(name="store.catalog.choose_head")
def choose_head() -> int:
    return heading.choose()


@shared_task(name="store.catalog.collect")
def collect() -> None:
    done = collecting.collect()
    if done.condemned or done.restored or done.removed or done.torn:
        log.info(
            "artifact store: %s objects condemned, %s put back, %s removed (%s bytes), and %s torn ones",
            *(done.condemned, done.restored, done.removed, done.removed_bytes, done.torn),
        )


@shared_task(name="store.catalog.bring_views")
def bring_views() -> int:
    return views.bring()


@shared_task(name="store.catalog.announce")
def announce(version: str) -> int:
    return announcing.announce(version)


@shared_task(name="store.catalog.announce_missed")
def announce_missed() -> int:
    return announcing.announce_missed()
