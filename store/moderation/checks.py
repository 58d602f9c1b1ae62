"""The automated checks of a submission: started as jobs on the workers, their evidence kept when the jobs end."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from django.db import transaction
from django.utils import timezone

from store.accounts import audit
from store.accounts.models import User
from store.catalog.models import Measurement, Version
from store.jobs import dispatch
from store.jobs.models import Job
from store.moderation.errors import Decided
from store.moderation.models import Check, Submission
from store.moderation.notices import tell_publisher
from store.moderation.reviewers import require_reviewer
from store.notifications.models import Notification

OF_FILES = ("files", "loads", "generates", "perplexity")
OF_PROMPTS = ("generates",)  # its weights were checked with the version that brought them
OUTCOMES = frozenset({Check.State.PASSED, Check.State.WARNED, Check.State.FAILED})


def start(submission: Submission) -> None:
    """Creates the checks and their jobs, in the transaction of the submission; texts alone need none and go to the queue."""
    version = submission.version
    if version is None:
        _queue_if_complete(submission)
        return
    for name in OF_PROMPTS if version.kind == Version.Kind.PROMPT else OF_FILES:
        Check.objects.create(submission=submission, name=name, job=_create_job(submission, version, name).public_id)


def run_again(user: User, check: Check) -> None:
    """Gives a check that could not be run another job. Raises Decided when it is not in that state or the review is over."""
    require_reviewer(user)
    with transaction.atomic():
        submission = Submission.objects.select_for_update().get(pk=check.submission_id)
        if not submission.is_open or submission.version is None:
            raise Decided
        job = _create_job(submission, submission.version, check.name)
        again: dict[str, Any] = {
            "state": Check.State.PENDING,
            "job": job.public_id,
            "code": "",
            "finding": "",
            "evidence": {},
            "finished_at": None,
        }
        if not Check.objects.filter(pk=check.pk, state=Check.State.ERROR).update(**again):
            raise Decided
        Submission.objects.filter(pk=submission.pk, state=Submission.State.QUEUED).update(state=Submission.State.CHECKING)
        audit.record(user, "check.run_again", submission.public_id, check=check.name)


def take_outcome(job: Job) -> None:
    """Keeps what a check job found; called in the transaction that ends the job, in whichever way it ended."""
    check = Check.objects.filter(job=job.public_id, state=Check.State.PENDING).first()
    if check is None:
        return
    submission = Submission.objects.select_for_update().get(pk=check.submission_id)  # of the last two, one sees the other
    fields = _from_result(job.result) if job.state == Job.State.SUCCEEDED else _from_failure(job)
    kept = Check.objects.filter(pk=check.pk, state=Check.State.PENDING).update(finished_at=timezone.now(), **fields)
    if not kept:
        return
    if submission.version_id is not None and job.state == Job.State.SUCCEEDED:
        _keep_measurements(submission.version_id, job)
    _queue_if_complete(submission)


def _create_job(submission: Submission, version: Version, name: str) -> Job:
    """A job of the store's own, so that no publisher can pause or cancel it."""
    weights, adapter = version.weights(), version.adapter()
    assert weights.artifact is not None
    params = {
        "check": name,
        "base": weights.artifact.digest,
        "adapter": adapter.artifact.digest if adapter and adapter.artifact else None,
        "instructions": version.instructions,
        "starters": version.starters,
        "parameters": version.parameters,
    }
    return dispatch.create(Job.Kind.CHECK, params=params, subject=submission.public_id)


def _from_result(result: Mapping[str, Any]) -> dict[str, Any]:
    state = result.get("state")
    if state not in OUTCOMES:
        return {"state": Check.State.ERROR, "code": "bad_result", "finding": "The check gave no result that can be read.", "evidence": {}}
    evidence = result.get("evidence")
    return {
        "state": state,
        "code": str(result.get("code", ""))[:60],
        "finding": str(result.get("finding", ""))[:400],
        "evidence": evidence if isinstance(evidence, dict) else {},
    }


def _from_failure(job: Job) -> dict[str, Any]:
    code = job.error_code or job.state
    return {"state": Check.State.ERROR, "code": code[:60], "finding": job.error[:400], "evidence": job.error_detail or {}}


def _keep_measurements(version_id: int, job: Job) -> None:
    measured: Iterable[Any] = job.result.get("measurements") or []
    for row in measured:
        numbers = {name: row.get(name) for name in ("value", "low", "high", "base_value")}
        if not all(n is None or (isinstance(n, int | float) and math.isfinite(n)) for n in numbers.values()) or numbers["value"] is None:
            continue
        Measurement.objects.update_or_create(
            version_id=version_id,
            name=str(row.get("name", ""))[:40],
            defaults={
                **numbers,
                **dict.fromkeys(("difference", "difference_low", "difference_high")),  # of an evaluation, whose base it was
                "unit": str(row.get("unit", ""))[:20],
                "lower_is_better": bool(row.get("lower_is_better")),
                "method": row.get("method") or {},
                "made_by": job.public_id,
            },
        )


def _queue_if_complete(submission: Submission) -> None:
    """CHECKING → QUEUED when no check is pending: a failed one is for a reviewer to judge."""
    if Check.objects.filter(submission=submission, state=Check.State.PENDING).exists():
        return
    if not Submission.objects.filter(pk=submission.pk, state=Submission.State.CHECKING).update(state=Submission.State.QUEUED):
        return
    failed = list(Check.objects.filter(submission=submission, state=Check.State.FAILED).values_list("name", flat=True))
    if failed:
        tell_publisher(submission.listing, Notification.Kind.SUBMISSION_CHECKS_FAILED, cause=submission, version=submission.version)
