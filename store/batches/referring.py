"""What batches refer to in the artifact store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from store.batches.models import Batch
from store.jobs.models import Job, JobSegment


def digests() -> Iterator[Any]:
    """JSON values in which the digests stand: the requests of batches that have not ended, their shards and what was answered.

    What an ended batch has is its files, which are files like any other.
    """
    under_way = Batch.objects.exclude(state__in=Batch.ENDED)
    yield from under_way.values_list("input_sha256", "shards").iterator()
    of_them = JobSegment.objects.filter(job__kind=Job.Kind.BATCH, job__subject__in=under_way.values("public_id"))
    yield from of_them.values_list("checkpoint", flat=True).iterator()
