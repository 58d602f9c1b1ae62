"""What becomes of jobs whose data may no longer be trained on."""

from __future__ import annotations

from collections.abc import Sequence

from store.accounts.models import Publisher
from store.jobs.models import Job
from store.jobs.outcomes import end

WITHDRAWN = "data_withdrawn"
_ERROR = "Somebody whose words are in the data took back their leave to use them."


def withdraw(publisher: Publisher | None, digests: Sequence[str]) -> None:
    """None that has not begun to train on one of these files does so, nor does one that ended try again; none keeps a file.

    What trains now, and what has trained, has read it already. Call it in the transaction that withdraws the data.
    """
    jobs = Job.objects.filter(publisher=publisher, params__file__in=list(digests))
    idle = [Job.State.WAITING, Job.State.QUEUED, Job.State.PAUSED]
    for pk in jobs.filter(state__in=idle).values_list("pk", flat=True):
        end(Job.objects.filter(pk=pk, state__in=idle), Job.State.FAILED, error=_ERROR, error_code=WITHDRAWN, error_detail={})
    over = list(jobs.filter(state__in=[Job.State.FAILED, Job.State.CANCELLED]))
    for job in over:
        job.params["file"] = ""
        job.error, job.error_code, job.error_detail = _ERROR, WITHDRAWN, {}
    Job.objects.bulk_update(over, ["params", "error", "error_code", "error_detail"])
