"""What beat has billing do."""

from __future__ import annotations

import structlog
from celery import shared_task

from store.billing import ledger

log = structlog.get_logger(__name__)


@shared_task(name="store.billing.void_expired")
def void_expired() -> None:
    """Give back what was reserved for work that was never settled: its settlement was lost, or it never began."""
    if count := ledger.void_expired():
        log.warning("reservations voided", count=count)
