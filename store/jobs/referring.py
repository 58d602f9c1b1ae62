"""What files and jobs refer to in the artifact store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.db.models import TextField
from django.db.models.functions import Cast

from store.jobs.models import Job, JobSegment, UploadedFile


def digests() -> Iterator[Any]:
    """JSON values in which the digests stand: files, what jobs made, and what those need that may still go on.

    A job that succeeded needs nothing any more, neither its file nor its checkpoint. Of what it made there are its result and the
    checkpoints of which a version can be made. About the shards of batches `store.batches.referring` knows.
    """
    yield from UploadedFile.objects.values_list("sha256", flat=True).iterator()
    jobs = Job.objects.exclude(kind=Job.Kind.BATCH)
    yield from jobs.values_list("result", flat=True).iterator()
    yield from jobs.exclude(state=Job.State.SUCCEEDED).values_list("params", "checkpoint").iterator()
    segments = JobSegment.objects.exclude(job__kind=Job.Kind.BATCH).annotate(text=Cast("events", TextField()))
    yield from segments.filter(text__contains='"snapshot"').values_list("events", flat=True).iterator()
