"""Sending jobs to the workers' queues. A message may be lost or come twice: the claim decides, and the reconciler sends again."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Any

import kombu.exceptions
import redis
import structlog
from django.conf import settings
from django.db.models import Q, QuerySet
from django.utils import timezone

from inference import protocol
from store.celery import app
from store.generation.dispatch import is_held
from store.jobs.models import Job

log = logging.getLogger(__name__)

RESEND_AFTER = timedelta(seconds=30)
SENT_AT_ONCE = 100  # by one round of the reconciler
# What a publisher starts; checks are the store's own.
LIMITED_KINDS = frozenset({Job.Kind.VALIDATION, Job.Kind.FINETUNE, Job.Kind.EVALUATION})
QUEUES = {Job.Kind.FINETUNE: protocol.TRAINING_QUEUE}


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
    now = timezone.now()
    job = due(now).filter(pk=pk).first()
    if job is None or not has_room(job):
        return False
    if not due(now).filter(pk=pk, attempt=job.attempt, dispatched_at=job.dispatched_at).update(dispatched_at=now):
        return False
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
        Job.objects.filter(pk=pk, dispatched_at=now).update(dispatched_at=None)
        return False
    return True


def send_due(**of: Any) -> int:
    """Sends what is due among the jobs `of` (a filter, for example one publisher's); how many were sent."""
    return sum(send(pk) for pk in due(timezone.now()).filter(**of).values_list("pk", flat=True)[:SENT_AT_ONCE])
