"""What the store's worker does for batches, and the clean-up after what was lost. Thin callers of the acts."""

from __future__ import annotations

from celery import shared_task

from store.batches import preparing, reconciliation, results, sending


@shared_task(name=sending.PREPARE)
def prepare(public_id: str) -> None:
    preparing.prepare(public_id)


@shared_task(name=sending.WRITE_RESULTS)
def write_results(public_id: str) -> None:
    results.write_results(public_id)


@shared_task(name="store.batches.reconcile")
def reconcile() -> None:
    reconciliation.reconcile()
