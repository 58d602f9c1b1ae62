"""Sending jobs to the workers' queues. A message may be lost or come twice: the claim decides, and the reconciler sends again."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Any

import kombu.exceptions
import redis
import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import Count, F, Q, QuerySet, Window
from django.db.models.functions import RowNumber
from django.utils import timezone

from inference import protocol
from store.celery import app
from store.generation.dispatch import is_held
from store.jobs.models import Job

log = logging.getLogger(__name__)

RESEND_AFTER = timedelta(seconds=30)
SENT_AT_ONCE = 100  # by one round of the reconciler
# What a publisher starts; checks are the store's own.
LIMITED_KINDS = frozenset({Job.Kind.VALIDATION, Job.Kind.IMPORT, Job.Kind.FINETUNE, Job.Kind.PRETRAINING, Job.Kind.EVALUATION})
QUEUES = {Job.Kind.FINETUNE: protocol.TRAINING_QUEUE, Job.Kind.PRETRAINING: protocol.TRAINING_QUEUE}


def queue_of(job: Job) -> str:
    """Long work and short work wait in separate queues, so that an operator can give checks a worker of their own.

    A shard of a batch waits for those who hold its base, or for whoever can load it.
    """
    if job.kind == Job.Kind.BATCH:
        base = job.params["base"]
        return protocol.batch_queue(base) if is_held(base) else protocol.LOAD_QUEUE
    return QUEUES.get(Job.Kind(job.kind), protocol.CHECKS_QUEUE)


def task_of(job: Job) -> protocol.JobTask:
    return protocol.JobTask(
        job=job.public_id,
        attempt=job.attempt,
        kind=job.kind,
        params=job.params,
        checkpoint=job.checkpoint or None,
        segment=job.segment,
        trace=str(structlog.contextvars.get_contextvars().get("request_id", "")),
    )


def claimable(now: datetime) -> Q:
    """Queued, nobody's, and past its back-off."""
    return Q(state=Job.State.QUEUED, claim="") & (Q(not_before__isnull=True) | Q(not_before__lte=now))


def due(now: datetime) -> QuerySet[Job]:
    """What should be on a queue and was never sent, or so long ago that the message may be lost; oldest first."""
    unsent = Q(dispatched_at__isnull=True) | Q(dispatched_at__lt=now - RESEND_AFTER)
    return Job.objects.filter(claimable(now) & unsent).order_by("pk")


def has_room(job: Job) -> bool:
    """Whether the publisher may run another job of this kind now."""
    if job.publisher_id is None or job.kind not in LIMITED_KINDS:
        return True
    running = Job.objects.filter(publisher_id=job.publisher_id, kind=job.kind, state=Job.State.RUNNING)
    return running.exclude(pk=job.pk).count() < settings.JOBS_PER_PUBLISHER


def send(pk: int) -> bool:
    """Puts one job on its queue if it is due and its publisher has room; whether it was sent."""
    return send_due(pk=pk) > 0


def send_due(**of: Any) -> int:
    """Sends what is due among the jobs `of` (a filter, for example one publisher's); how many were sent.

    Publishers take turns: the first job of each goes before the second of any, and of what one may not run yet nothing is sent, so
    that nobody waits behind another's thousand. The number of queries does not depend on how many jobs wait.
    """
    now = timezone.now()
    with transaction.atomic():
        chosen = _in_turn(now, **of)
        mine = due(now).filter(pk__in=chosen).select_for_update(skip_locked=True).in_bulk()
        jobs = [mine[pk] for pk in chosen if pk in mine]
        Job.objects.filter(pk__in=[job.pk for job in jobs]).update(dispatched_at=now)
    sent = 0
    try:
        while sent < len(jobs) and _put(jobs[sent]):
            sent += 1
    finally:
        if unsent := [job.pk for job in jobs[sent:]]:
            Job.objects.filter(pk__in=unsent, dispatched_at=now).update(dispatched_at=None)
    return sent


def _in_turn(now: datetime, **of: Any) -> list[int]:
    """The jobs to be sent in this round. What is not limited goes with the first of each publisher."""
    waiting = due(now).filter(**of)
    limited = Q(publisher__isnull=False, kind__in=LIMITED_KINDS)
    turns = [(1, pk) for pk in waiting.exclude(limited).values_list("pk", flat=True)[:SENT_AT_ONCE]]
    on_its_way = Q(state=Job.State.QUEUED, claim="", dispatched_at__gte=now - RESEND_AFTER)
    busy = Job.objects.filter(limited & (Q(state=Job.State.RUNNING) | on_its_way)).values("publisher", "kind").annotate(count=Count("pk"))
    taken = {(row["publisher"], row["kind"]): row["count"] for row in busy.order_by()}
    place = Window(RowNumber(), partition_by=[F("publisher"), F("kind")], order_by="pk")
    first = waiting.filter(limited).annotate(place=place).filter(place__lte=settings.JOBS_PER_PUBLISHER)
    for pk, publisher, kind, number in first.values_list("pk", "publisher", "kind", "place"):
        turn = number + taken.get((publisher, kind), 0)
        if turn <= settings.JOBS_PER_PUBLISHER:
            turns.append((turn, pk))
    return [pk for _turn, pk in sorted(turns)[:SENT_AT_ONCE]]


def _put(job: Job) -> bool:
    try:
        # An unread message dies when its successor may be sent, so a busy queue never fills with copies.
        app.send_task(
            protocol.RUN_JOB,
            args=[task_of(job).to_json()],
            queue=queue_of(job),
            expires=RESEND_AFTER.total_seconds(),
            retry=False,
            ignore_result=True,
        )
    except (kombu.exceptions.OperationalError, redis.RedisError, OSError) as error:
        log.warning("job %s not sent: %s", job.public_id, error)
        return False
    return True
