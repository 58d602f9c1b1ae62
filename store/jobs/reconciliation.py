"""The one place that sends again and gives up: run by beat every few seconds, safe to run twice at once."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import timedelta

import redis
from django.db import transaction
from django.utils import timezone

from store import valkey
from store.jobs import sending, taken_down
from store.jobs.claims import fail, paused, tries_without_progress, try_again
from store.jobs.models import Job
from store.jobs.outcomes import end, follow

log = logging.getLogger(__name__)

LOST_AFTER = timedelta(seconds=30)  # without a heartbeat; a worker sends one every 5 s
WATCHING_KEY = "jobs:reconciler:watching"
WATCHING_TTL_S = 20  # rounds further apart than this are not one watch
LOST = "The worker that ran the job stopped answering."


@dataclass(frozen=True)
class Round:
    """What one round did."""

    sent: int
    lost: int
    followed: int
    stopped: int


def reconcile() -> Round:
    """Stops what may not go on, gives jobs whose worker is silent a new attempt, starts followers, and sends what is due and unclaimed."""
    return Round(stopped=taken_down.stop_jobs(), lost=_give_up_lost(), followed=_follow(), sent=sending.send_due())


def _give_up_lost() -> int:
    """A silent worker is taken for lost only after this watch itself has lasted long enough to have heard it.

    Heartbeats come through the broker and the store's own worker: after either was away, every job looks silent.
    """
    if time.time() - _watching_since() < LOST_AFTER.total_seconds():
        return 0
    silent = Job.objects.filter(state=Job.State.RUNNING, heartbeat_at__lt=timezone.now() - LOST_AFTER)
    return sum(_lose(pk, claim) for pk, claim in silent.values_list("pk", "claim"))


def _watching_since() -> float:
    try:
        client = valkey.client()
        client.set(WATCHING_KEY, time.time(), nx=True)
        client.expire(WATCHING_KEY, WATCHING_TTL_S)
        return float(client.get(WATCHING_KEY) or time.time())
    except redis.RedisError as error:
        log.warning("no broker, so no heartbeat could have come: %s", error)
        return time.time()


def _lose(pk: int, claim: str) -> bool:
    with transaction.atomic():
        silent = Job.objects.filter(pk=pk, claim=claim, state=Job.State.RUNNING, heartbeat_at__lt=timezone.now() - LOST_AFTER)
        job = silent.select_for_update().first()
        if job is None:
            return False
        log.warning("job %s lost by %s in attempt %s", job.public_id, job.worker, job.attempt)
        if job.wish == Job.Wish.CANCEL:
            return end(silent, Job.State.CANCELLED) is not None
        if job.wish == Job.Wish.PAUSE:
            return paused(job, silent)
        if job.attempt < job.max_attempts:
            return try_again(job, silent, code="worker_lost", error=LOST)
        return fail(silent, code="worker_lost", error=LOST, detail={"attempts": 1 + tries_without_progress(job), "worker": job.worker})


def _follow() -> int:
    """Followers whose predecessor ended in the moment they were created."""
    waiting = Job.objects.filter(state=Job.State.WAITING, after__state__in=Job.ENDED)
    return sum(follow(pk) for pk in waiting.values_list("pk", flat=True))
