"""What beat has billing do."""

from __future__ import annotations

import structlog
from celery import shared_task

from store.billing import access, ledger

log = structlog.get_logger(__name__)


@shared_task(name="store.billing.end_access")
def end_access() -> None:
    """Renew monthly access where its buyer wants that, and tell whose has ended."""
    if count := access.end_due():
        log.info("monthly access ended", count=count)


@shared_task(name="store.billing.void_expired")
def void_expired() -> None:
    """Give back what was reserved for work that was never settled: its settlement was lost, or it never began."""
    if count := ledger.void_expired():
        log.warning("reservations voided", count=count)
