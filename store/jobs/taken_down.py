"""What was taken down meanwhile is neither trained on nor measured any more, also by a job that has begun.

A worker learns of it by its next heartbeat, as of any job that is not its own any more: it ends the process and writes nothing.
The checkpoint stays, for the case that what was taken down comes back. Shards of batches end with their batch (`store.batches.ending`).
"""

from __future__ import annotations

from django.db.models import Exists, OuterRef

from store.catalog.models import Version
from store.jobs.claims import fail
from store.jobs.models import Job

CODE = "taken_down"
ERROR = "The GPT that the job works on, or one that it builds on, was taken down."
KINDS = frozenset({Job.Kind.VALIDATION, Job.Kind.FINETUNE, Job.Kind.EVALUATION})  # whose subject is a version
STOPPED = frozenset({Job.State.WAITING, Job.State.QUEUED, Job.State.RUNNING})  # one that is paused is asked when it shall go on


def stop_jobs() -> int:
    """Fails the jobs that wait or run on a version that was taken down, or is there no more; how many."""
    standing = Version.objects.not_taken_down().filter(public_id=OuterRef("subject"))
    lost = Job.objects.filter(~Exists(standing), kind__in=KINDS, state__in=STOPPED).exclude(subject="")
    # The newest first: what waits for another one fails for its own reason.
    return sum(_stop(pk) for pk in lost.order_by("-pk").values_list("pk", flat=True))


def _stop(pk: int) -> bool:
    return fail(Job.objects.filter(pk=pk, state__in=STOPPED), code=CODE, error=ERROR)
