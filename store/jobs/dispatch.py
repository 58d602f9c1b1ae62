"""Creating jobs, and what people may do to them. Every act is a conditional update: of two at once only one takes effect."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from django.db import transaction
from django.db.models import F, QuerySet

from store.accounts import audit
from store.accounts.models import Membership, Publisher, User
from store.accounts.publishers import require_role
from store.errors import NotFound
from store.jobs import sending
from store.jobs.errors import NotRetriable, WrongState
from store.jobs.models import Job
from store.jobs.outcomes import end, note, requeue

MAX_ATTEMPTS = 3
HOPELESS = frozenset(
    {"data_invalid", "data_unusable", "data_withdrawn", "suite_invalid", "suite_unusable", "nothing_to_measure", "folder_unusable"}
)  # error codes that another attempt cannot mend

_beginning: list[Callable[[User, Job], None]] = []
_open: list[Callable[[Job], bool]] = []


def before_going_on(function: Callable[[User, Job], None]) -> None:
    """Has `function(user, job)` called in the transaction that resumes or retries a job, for example to reserve its cost again."""
    if function not in _beginning:
        _beginning.append(function)


def open_to_all(function: Callable[[Job], bool]) -> None:
    """Has everybody see the jobs for which `function(job)` holds, without an account; who may act on them stays the same."""
    if function not in _open:
        _open.append(function)


def create(
    kind: str,
    *,
    params: dict[str, Any],
    publisher: Publisher | None = None,
    user: User | None = None,
    subject: str = "",
    after: Job | None = None,
    max_attempts: int = MAX_ATTEMPTS,
) -> Job:
    """A new job, sent to the workers once the transaction holds, or kept waiting until `after` has succeeded.

    `params` is what the worker gets: digests of artifacts, never ids of rows. `subject` is the public id of what it is about.
    """
    with transaction.atomic():
        job = Job.objects.create(
            kind=kind,
            state=Job.State.WAITING if after else Job.State.QUEUED,
            params=params,
            publisher=publisher,
            created_by=user,
            subject=subject,
            after=after,
            max_attempts=max_attempts,
        )
        note(job, job.state)
        transaction.on_commit(partial(sending.send, job.pk))
    return job


def require_reader(user: Any, job: Job) -> None:
    """Insiders may see a job, and everybody one that is open to all; for everybody else it does not exist."""
    if not is_insider(user, job) and not any(function(job) for function in _open):
        raise NotFound


def is_insider(user: Any, job: Job) -> bool:
    """Whether the user belongs to its publisher or is an operator."""
    if _is_operator(user, "jobs.view_job"):
        return True
    return job.publisher is not None and job.publisher.role_of(user) is not None


def require_actor(user: Any, job: Job) -> None:
    """Owners and maintainers of its publisher may act on a job, and operators on every job."""
    if _is_operator(user, "jobs.change_job"):
        return
    if job.publisher is None:
        raise NotFound
    require_role(user, job.publisher, Membership.Role.OWNER, Membership.Role.MAINTAINER)


def _is_operator(user: Any, permission: str) -> bool:
    return bool(getattr(user, "is_staff", False) and user.has_perm(permission))


def pause(user: User, job: Job) -> None:
    """Stops after the segment under way, or at once when nobody works on it. Raises WrongState."""
    require_actor(user, job)
    with transaction.atomic():
        rows = Job.objects.filter(pk=job.pk)
        if rows.filter(state=Job.State.QUEUED).update(state=Job.State.PAUSED):
            note(job, "paused")
        elif rows.filter(state=Job.State.RUNNING, wish=Job.Wish.NONE).update(wish=Job.Wish.PAUSE):
            note(job, "pause_asked")
        else:
            raise WrongState
        audit.record(user, "job.pause", job.public_id)


def resume(user: User, job: Job) -> None:
    """Goes on from the last checkpoint; also takes back a pause that has not happened yet.

    Raises WrongState, and what reserving its cost again may raise: then it stays paused.
    """
    require_actor(user, job)
    with transaction.atomic():
        rows = Job.objects.filter(pk=job.pk)
        current = rows.select_for_update().get()
        if requeue(rows.filter(state=Job.State.PAUSED)):
            _go_on(user, current)
            transaction.on_commit(partial(sending.send, job.pk))
        elif not rows.filter(state=Job.State.RUNNING, wish=Job.Wish.PAUSE).update(wish=Job.Wish.NONE):
            raise WrongState
        note(job, "resumed")
        audit.record(user, "job.resume", job.public_id)


def cancel(user: User, job: Job) -> None:
    """Ends it without a result: at once when nobody works on it, else at the worker's next heartbeat. Raises WrongState."""
    require_actor(user, job)
    with transaction.atomic():
        rows = Job.objects.filter(pk=job.pk)
        idle = rows.filter(state__in=[Job.State.WAITING, Job.State.QUEUED, Job.State.PAUSED])
        if end(idle, Job.State.CANCELLED) is None:
            if not rows.filter(state=Job.State.RUNNING).exclude(wish=Job.Wish.CANCEL).update(wish=Job.Wish.CANCEL):
                raise WrongState
            note(job, "cancel_asked")
        audit.record(user, "job.cancel", job.public_id)


def retry(user: User, job: Job) -> None:
    """Gives a failed or cancelled job new attempts, from its last checkpoint. Raises WrongState and NotRetriable."""
    require_actor(user, job)
    with transaction.atomic():
        rows = Job.objects.filter(pk=job.pk, state__in=[Job.State.FAILED, Job.State.CANCELLED])
        current = rows.select_related("after").first()
        if current is None:
            raise WrongState
        if current.error_code in HOPELESS:
            raise NotRetriable
        if not _begin_again(rows):
            raise WrongState
        _go_on(user, current)
        if current.after is not None and current.after.state != Job.State.SUCCEEDED:
            _wait_again(current)
        note(current, "retried")
        audit.record(user, "job.retry", job.public_id)
        transaction.on_commit(partial(sending.send, job.pk))


def _go_on(user: User, job: Job) -> None:
    """`job` as it stood before it was queued again."""
    for function in _beginning:
        function(user, job)


def _begin_again(ended: QuerySet[Job]) -> bool:
    """New attempts for a job that has ended; what it had learned of its failure is forgotten, its checkpoint is not."""
    allowed = F("attempt") + MAX_ATTEMPTS
    return requeue(ended, allowed=allowed, error="", error_code="", error_detail={}, finished_at=None)


def _wait_again(job: Job) -> None:
    """Its predecessor did not succeed either: that one is tried again first."""
    assert job.after is not None
    if job.after.error_code in HOPELESS:
        raise NotRetriable
    Job.objects.filter(pk=job.pk).update(state=Job.State.WAITING)
    ended = Job.objects.filter(pk=job.after.pk, state__in=[Job.State.FAILED, Job.State.CANCELLED])
    if _begin_again(ended):
        note(job.after, "retried")
        transaction.on_commit(partial(sending.send, job.after.pk))
