"""What workers say about jobs. Each message is a conditional update on (attempt, claim): whatever carries another claim changes nothing.

Every function may be called twice with the same message, and by a worker that lost its job long ago.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

from django.db import transaction
from django.db.models import F, QuerySet
from django.db.models.functions import Coalesce, Greatest
from django.utils import timezone

from inference.protocol import Claim, Outcome, Segment, Verdict
from store.accounts.models import Publisher
from store.jobs import sending
from store.jobs.dispatch import MAX_ATTEMPTS
from store.jobs.models import Job, JobSegment
from store.jobs.outcomes import COUNTED, UNCOUNTED, end, note, requeue

log = logging.getLogger(__name__)

BACKOFF_FIRST_S = 10
BACKOFF_MOST_S = 600
MAX_ERROR_CHARS = 4000
WISHES = {Job.Wish.NONE: Verdict.GO_ON, Job.Wish.PAUSE: Verdict.PAUSE, Job.Wish.CANCEL: Verdict.CANCEL}
CANCELLED = "cancelled"  # error codes of a worker that did as it was told
PAUSED = "paused"
OUTAGES = frozenset({"artifacts_unreachable", "worker_storage"})  # nothing is wrong with the job: it waits until that is over
OUTAGE_TRIES = 10  # the pauses between them come to about fifty minutes

_on_segment: dict[str, Callable[[Job, list[dict[str, Any]]], None]] = {}


def on_segment(kind: str, function: Callable[[Job, list[dict[str, Any]]], None]) -> None:
    """Has `function(job, events)` called in the transaction that records a segment of a job of this kind, so once for each."""
    _on_segment[kind] = function


def held(message: Claim | Segment | Outcome) -> QuerySet[Job]:
    """The job of the message, if its sender still holds it."""
    return Job.objects.filter(public_id=message.job, attempt=message.attempt, claim=message.claim, state=Job.State.RUNNING).exclude(
        claim=""
    )


def claim(message: Claim) -> Verdict:
    """Gives the attempt to this worker, if nobody has it and its publisher may run another."""
    with transaction.atomic():
        if (mine := _verdict(held(message))) is not Verdict.LOST:
            return mine  # the same claim again: its first answer was lost
        now = timezone.now()
        free = Job.objects.filter(sending.claimable(now), public_id=message.job, attempt=message.attempt)
        job = free.first()
        if job is None or not message.claim:
            return Verdict.LOST
        if job.publisher_id is not None:  # of two jobs for the last place, one waits here and then sees the other
            Publisher.objects.select_for_update().filter(pk=job.publisher_id).first()
        if not sending.has_room(job):
            free.update(dispatched_at=None)
            return Verdict.LOST
        taken = free.update(
            state=Job.State.RUNNING,
            claim=message.claim,
            worker=message.worker[:120],
            heartbeat_at=now,
            started_at=Coalesce("started_at", now),
        )
        if not taken:
            return Verdict.LOST
        note(job, "claimed", worker=message.worker[:120])
    return Verdict.GO_ON


def heartbeat(message: Claim) -> Verdict:
    """Notes that the worker is alive, and tells it what is wished of it."""
    jobs = held(message)
    jobs.update(heartbeat_at=timezone.now())
    return _verdict(jobs)


def segment(message: Segment) -> Verdict:
    """Makes a checkpoint current. A wished pause takes effect here, and the worker learns of it by the answer.

    Attempts run out for a job that gets no further: whatever died on the way to this segment counts no more.
    """
    with transaction.atomic():
        jobs = held(message)
        job = jobs.first()
        if job is None:
            return _said_before(message)
        done = min(max(message.done, job.done), 1.0)
        moved = jobs.filter(segment=message.number).update(
            segment=F("segment") + 1,
            checkpoint=message.checkpoint,
            done=done,
            heartbeat_at=timezone.now(),
            max_attempts=Greatest(F("max_attempts"), F("attempt") + MAX_ATTEMPTS - 1),
        )
        if not moved:
            return _said_before(message)
        JobSegment.objects.create(
            job=job, number=message.number, attempt=message.attempt, checkpoint=message.checkpoint, events=message.events
        )
        if (counts := _on_segment.get(job.kind)) is not None:
            counts(job, message.events)
        if paused(job, jobs.filter(wish=Job.Wish.PAUSE)):
            return Verdict.PAUSE
        return _verdict(jobs)


def finished(message: Outcome) -> bool:
    """Ends the job with its result; whether this message did it."""
    return end(held(message), Job.State.SUCCEEDED, result=message.result, done=1.0, error="", error_code="") is not None


def failed(message: Outcome) -> bool:
    """Ends the attempt: cancelled, left at a checkpoint, to be tried again after a pause, or failed for good."""
    with transaction.atomic():
        jobs = held(message)
        job = jobs.select_for_update().first()
        if job is None:
            return False
        if message.code == CANCELLED or job.wish == Job.Wish.CANCEL:
            return end(jobs, Job.State.CANCELLED) is not None
        if message.code == PAUSED:
            return _left(job, jobs)
        if message.retriable and job.wish == Job.Wish.PAUSE:
            return paused(job, jobs)
        if message.retriable and (job.attempt < job.max_attempts or _waits_for(message.code, tries_without_progress(job))):
            return try_again(job, jobs, code=message.code, error=message.error)
        return fail(jobs, code=message.code, error=message.error, detail=message.detail)


def fail(jobs: QuerySet[Job], *, code: str, error: str, detail: dict[str, object] | None = None) -> bool:
    ended = end(jobs, Job.State.FAILED, error=error[:MAX_ERROR_CHARS], error_code=code[:60] or "internal", error_detail=detail or {})
    return ended is not None


def try_again(job: Job, jobs: QuerySet[Job], *, code: str, error: str) -> bool:
    """Another attempt, after a pause that doubles with each that gets no further."""
    tries = tries_without_progress(job)
    pause_s = min(BACKOFF_FIRST_S * 2**tries, BACKOFF_MOST_S)
    note(job, "retrying", code=code, error=error[:2000], pause_s=pause_s)
    done = requeue(jobs, allowed=UNCOUNTED if _waits_for(code, tries) else COUNTED, not_before=timezone.now() + timedelta(seconds=pause_s))
    _next_of(job)
    return done


def _waits_for(code: str, tries: int) -> bool:
    """Whether what ended an attempt is waited for, without counting the attempt."""
    return code in OUTAGES and tries < OUTAGE_TRIES


def tries_without_progress(job: Job) -> int:
    """How often it was tried again since its last segment, or since somebody had it tried again."""
    began = [moment.created_at for moment in (job.segments.last(), job.events.filter(kind="retried").last()) if moment is not None]
    again = job.events.filter(kind="retrying")
    return again.filter(created_at__gt=max(began)).count() if began else again.count()


def _left(job: Job, jobs: QuerySet[Job]) -> bool:
    """The worker ended after a segment: because a pause was wished, or because it was itself asked to stop."""
    if job.wish == Job.Wish.PAUSE:
        return paused(job, jobs)
    note(job, "left", worker=job.worker)
    transaction.on_commit(partial(sending.send, job.pk))
    return requeue(jobs)


def paused(job: Job, jobs: QuerySet[Job]) -> bool:
    """A pause that was wished takes effect, where `jobs` finds the job; whether it did."""
    if not jobs.update(state=Job.State.PAUSED, claim="", wish=Job.Wish.NONE):
        return False
    note(job, "paused")
    _next_of(job)
    return True


def _verdict(jobs: QuerySet[Job]) -> Verdict:
    wish = jobs.values_list("wish", flat=True).first()
    return Verdict.LOST if wish is None else WISHES[Job.Wish(wish)]


def _said_before(message: Segment) -> Verdict:
    """A segment that is current already and comes again, its first answer lost, is answered as before."""
    job = Job.objects.filter(public_id=message.job, attempt=message.attempt, segment=message.number + 1).first()
    if job is None or job.checkpoint != message.checkpoint:
        return Verdict.LOST
    if job.state == Job.State.PAUSED and job.segments.filter(number=message.number, attempt=message.attempt).exists():
        return Verdict.PAUSE
    return _verdict(held(message))


def _next_of(job: Job) -> None:
    """Its place is free: the publisher's next job need not wait for the reconciler."""
    if job.publisher_id is not None:
        transaction.on_commit(partial(sending.send_due, publisher_id=job.publisher_id))
