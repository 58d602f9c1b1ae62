"""The shards of a person's batches, in their turn: a few at once, whatever there are, so that nobody's batches hold up another's.

A job of a shard is made when its turn comes. So a batch of a hundred shards fills no queue, and to cancel it is to end a few jobs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from store.accounts.models import User
from store.batches import sending
from store.batches.models import Batch
from store.jobs import dispatch
from store.jobs.models import Job

MAX_ATTEMPTS = 100  # of a shard, with pauses of up to ten minutes: it may have to give way to people again and again
COUNTS = ("completed", "failed", "prompt_tokens", "completion_tokens", "cached_tokens")


def advance(user: User) -> None:
    """Gives the next shards of the person's batches their turn, the oldest batch first, and ends the batches that have none left."""
    with transaction.atomic():
        User.objects.select_for_update(no_key=True).get(pk=user.pk)  # those of one person wait for each other
        under_way = list(
            Job.objects.filter(kind=Job.Kind.BATCH, created_by=user).exclude(state__in=Job.ENDED).values_list("subject", flat=True)
        )
        for batch in Batch.objects.filter(user=user, state=Batch.State.IN_PROGRESS).select_related("user", "version").order_by("pk"):
            while len(under_way) < settings.BATCH_SHARDS_PER_PERSON and (number := _next(batch)) is not None:
                if not _begin(batch, number):
                    break
                under_way.append(batch.public_id)
            if _next(batch) is None and batch.public_id not in under_way:
                _answered(batch)


def _next(batch: Batch) -> int | None:
    """The number of the first shard that had no turn yet and holds something to answer."""
    return next((number for number in range(batch.next_shard, len(batch.shards)) if batch.shards[number]["requests"]), None)


def _begin(batch: Batch, number: int) -> bool:
    """Whether the batch is still in progress, and so the shard has a job now."""
    rows = Batch.objects.filter(pk=batch.pk, state=Batch.State.IN_PROGRESS, next_shard=batch.next_shard)
    if batch.version is None or not rows.update(next_shard=number + 1):
        return False
    batch.next_shard = number + 1
    base = batch.version.weights().artifact
    assert base is not None
    params = {"base": base.digest, "shard": batch.shards[number]["sha256"], "number": number}
    dispatch.create(Job.Kind.BATCH, params=params, user=batch.user, subject=batch.public_id, max_attempts=MAX_ATTEMPTS)
    return True


def _answered(batch: Batch) -> None:
    state = Batch.State
    ended = Batch.objects.filter(pk=batch.pk, state=state.IN_PROGRESS).update(
        state=state.FINALIZING, ending=state.COMPLETED, finalizing_at=timezone.now(), sent_at=None
    )
    if ended:
        transaction.on_commit(partial(sending.send, batch.pk))


def recorded(job: Job, events: Iterable[Mapping[str, Any]]) -> None:
    """Counts what a segment of a shard says was answered, in the transaction that records the segment."""
    for event in events:
        under_way = Batch.objects.filter(public_id=job.subject).exclude(state__in=Batch.ENDED)
        under_way.update(**{name: F(name) + max(int(event.get(name, 0)), 0) for name in COUNTS})


def ended(job: Job) -> None:
    """A shard's place is free, in the transaction that ends it."""
    batch = Batch.objects.select_related("user").filter(public_id=job.subject).first()
    if batch is None:
        return
    advance(batch.user)
    if batch.state in Batch.ENDING:
        transaction.on_commit(partial(sending.send, batch.pk))
