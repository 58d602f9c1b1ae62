"""Has the store's worker do what takes long, and tells people how it ended. A message that is lost is sent again by the reconciler."""

from __future__ import annotations

import logging
from datetime import timedelta

import kombu.exceptions
import redis
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from store.batches.models import Batch
from store.celery import app
from store.jobs.models import Job
from store.notifications.messages import notify
from store.notifications.models import Notification

log = logging.getLogger(__name__)

PREPARE = "store.batches.prepare"
WRITE_RESULTS = "store.batches.write_results"
RESEND_AFTER = timedelta(minutes=2)  # longer than either takes: a second one is harmless, and in vain


def with_jobs_under_way() -> Exists:
    under_way = Job.objects.filter(kind=Job.Kind.BATCH, subject=OuterRef("public_id")).exclude(state__in=Job.ENDED)
    return Exists(under_way)


def due() -> QuerySet[Batch]:
    """What waits for the store's worker, and was not sent or so long ago that the message may be lost."""
    ready = Q(state=Batch.State.VALIDATING) | (Q(state__in=Batch.ENDING) & ~with_jobs_under_way())
    unsent = Q(sent_at__isnull=True) | Q(sent_at__lt=timezone.now() - RESEND_AFTER)
    return Batch.objects.filter(ready & unsent)


def send(pk: int) -> bool:
    """Sends what the batch waits for, if it waits; whether it was sent."""
    batch = due().filter(pk=pk).first()
    if batch is None:
        return False
    now = timezone.now()
    if not Batch.objects.filter(pk=pk, state=batch.state, sent_at=batch.sent_at).update(sent_at=now):
        return False
    task = PREPARE if batch.state == Batch.State.VALIDATING else WRITE_RESULTS
    try:
        app.send_task(task, args=[batch.public_id], expires=RESEND_AFTER.total_seconds(), retry=False)
    except (kombu.exceptions.OperationalError, redis.RedisError, OSError) as error:
        log.warning("batch %s not sent: %s", batch.public_id, error)
        Batch.objects.filter(pk=pk, sent_at=now).update(sent_at=None)
        return False
    return True


def tell(batch: Batch, state: str) -> None:
    """Tells its owner that it ended, in the transaction that ends it; who cancelled it knows."""
    if state == Batch.State.CANCELLED:
        return
    kind = Notification.Kind.JOB_SUCCEEDED if state == Batch.State.COMPLETED else Notification.Kind.JOB_FAILED
    notify([batch.user], kind, key=f"{batch.cause}:{state}", params={"subject": batch.name}, url=f"/batches/{batch.public_id}/")
