"""How jobs end: one conditional update, and in its transaction whatever depends on the outcome.

A higher app that waits for a job of a kind says so with `on_end` in its AppConfig.ready.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

from django.db import transaction
from django.db.models import F, QuerySet
from django.utils import timezone

from store.jobs import progress, sending
from store.jobs.models import Job, JobEvent

UNCOUNTED = F("max_attempts") + 1
COUNTED = F("max_attempts")

_listeners: dict[str, list[Callable[[Job], None]]] = defaultdict(list)


def on_end(kind: str, function: Callable[[Job], None]) -> None:
    """Has `function(job)` called in the transaction that ends a job of this kind, in whichever way. It must be quick."""
    if function not in _listeners[kind]:
        _listeners[kind].append(function)


def note(job: Job, kind: str, **detail: Any) -> None:
    """Writes a line of the job's history, and tells who is watching once the transaction holds."""
    JobEvent.objects.create(job=job, kind=kind, attempt=job.attempt, detail=detail)
    transaction.on_commit(partial(progress.announce, job.public_id, kind))


def end(jobs: QuerySet[Job], state: Job.State, **fields: Any) -> Job | None:
    """Ends the one job that `jobs` finds; None when it finds none any more, and then nothing happens.

    `jobs` is the condition: it names the job, the state it must be in and, for a worker's word, its claim.
    """
    with transaction.atomic():
        pk = jobs.values_list("pk", flat=True).first()
        now = timezone.now()
        fields |= {"state": state, "claim": "", "wish": Job.Wish.NONE, "not_before": None, "finished_at": now}
        if pk is None or not jobs.filter(pk=pk).update(**fields):
            return None
        job = Job.objects.get(pk=pk)
        note(job, state, **({"code": job.error_code, "error": job.error[:2000]} if job.error_code else {}))
        for function in _listeners[job.kind]:
            function(job)
        _move_followers(job)
        if job.publisher_id is not None:
            transaction.on_commit(partial(sending.send_due, publisher_id=job.publisher_id))
    return job


def _move_followers(job: Job) -> None:
    for pk in Job.objects.filter(after=job, state=Job.State.WAITING).values_list("pk", flat=True):
        follow(pk)


def follow(pk: int) -> bool:
    """Starts or ends a job whose predecessor has ended; whether this call did it."""
    waiting = Job.objects.filter(pk=pk, state=Job.State.WAITING)
    job = waiting.select_related("after").first()
    if job is None or (job.after is not None and not job.after.has_ended):
        return False
    if job.after is not None and job.after.state == Job.State.CANCELLED:
        return end(waiting, Job.State.CANCELLED) is not None
    if job.after is not None and job.after.state == Job.State.FAILED:
        detail = {"job": job.after.public_id, "code": job.after.error_code}
        error = f"The job it waited for failed: {job.after.error}"
        return end(waiting, Job.State.FAILED, error=error, error_code="predecessor_failed", error_detail=detail) is not None
    with transaction.atomic():
        if not waiting.update(state=Job.State.QUEUED, dispatched_at=None):
            return False
        note(job, "queued")
        transaction.on_commit(partial(sending.send, pk))
    return True


def requeue(jobs: QuerySet[Job], *, allowed: Any = UNCOUNTED, **fields: Any) -> bool:
    """Gives the one job that `jobs` finds a new attempt that goes on from its checkpoint; whether it was found.

    The number of the attempt rises even when the last one does not count against it (a pause, a worker that was asked
    to stop): a message of the old attempt that comes late must find nothing to claim. `allowed` is the new `max_attempts`.
    """
    fields = {"not_before": None, **fields}
    return bool(
        jobs.update(
            state=Job.State.QUEUED,
            wish=Job.Wish.NONE,
            claim="",
            worker="",
            heartbeat_at=None,
            dispatched_at=None,
            attempt=F("attempt") + 1,
            max_attempts=allowed,
            **fields,
        )
    )
