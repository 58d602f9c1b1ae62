"""How a batch is ended before all of it is answered. What was answered by then is kept; the jobs of its shards are ended soon after."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext_noop

from store.accounts import audit
from store.accounts.models import User
from store.batches import sending
from store.batches.errors import NotCancellable
from store.batches.models import Batch
from store.catalog.models import Version
from store.errors import NotFound
from store.jobs.models import Job
from store.jobs.outcomes import end

State = Batch.State
SUSPENDED = gettext_noop("The GPT that it asks is not available any more.")


def cancel(user: User, batch: Batch) -> None:
    """Raises NotFound for anybody else's batch, and NotCancellable when it is ending already."""
    if batch.user_id != user.pk:
        raise NotFound
    if not _cancel(batch):
        raise NotCancellable
    audit.record(user, "batch.cancel", batch.public_id)


def _cancel(batch: Batch, **fields: Any) -> bool:
    now = timezone.now()
    with transaction.atomic():
        rows = Batch.objects.filter(pk=batch.pk)
        if rows.filter(state=State.VALIDATING).update(state=State.CANCELLED, cancelling_at=now, ended_at=now, **fields):
            return True
        ending = {"state": State.CANCELLING, "ending": State.CANCELLED, "cancelling_at": now, "sent_at": None, **fields}
        if not rows.filter(state=State.IN_PROGRESS).update(**ending):
            return False
        transaction.on_commit(partial(stop, batch.pk))
    return True


def expire() -> int:
    """Ends the batches whose time is over; how many."""
    now, over = timezone.now(), Batch.objects.filter(expires_at__lt=timezone.now())
    unread = over.filter(state=State.VALIDATING).update(state=State.EXPIRED, ended_at=now)
    ending = {"state": State.FINALIZING, "ending": State.EXPIRED, "finalizing_at": now, "sent_at": None}
    return unread + over.filter(state=State.IN_PROGRESS).update(**ending)


def cancel_unavailable() -> int:
    """Ends the batches whose GPT, or what it builds on, was suspended or withdrawn meanwhile; how many."""
    lost = Batch.objects.filter(state=State.IN_PROGRESS, version__isnull=False).exclude(version__in=Version.objects.not_taken_down())
    said = {"code": "model_not_found", "message": SUSPENDED, "param": "model", "line": None}
    return sum(_cancel(batch, errors=[said]) for batch in lost)


def stop(pk: int) -> None:
    """Ends the jobs of a batch that is ending: at once where nobody works on them, else at the worker's next heartbeat."""
    batch = Batch.objects.filter(pk=pk, state__in=Batch.ENDING).first()
    if batch is None:
        return
    for job in _under_way(batch):
        rows = Job.objects.filter(pk=job.pk)
        if end(rows.filter(state__in=[Job.State.WAITING, Job.State.QUEUED, Job.State.PAUSED]), Job.State.CANCELLED) is None:
            rows.filter(state=Job.State.RUNNING).exclude(wish=Job.Wish.CANCEL).update(wish=Job.Wish.CANCEL)
    sending.send(pk)


def _under_way(batch: Batch) -> QuerySet[Job]:
    return batch.jobs.exclude(state__in=Job.ENDED)
