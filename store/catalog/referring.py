"""What the catalogue refers to in the artifact store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from store.catalog.models import Artifact, Measurement


def digests() -> Iterator[Any]:
    """JSON values in which the digests stand: the artifacts of versions, in whatever state, and the records of what was measured.

    An artifact whose last version was a draft that was deleted is not among them: its row stays, and `artifacts.record` asks
    for its files again.
    """
    yield from Artifact.objects.filter(versions__isnull=False).distinct().values_list("digest", "manifest").iterator()
    yield from Measurement.objects.values_list("method", flat=True).iterator()
