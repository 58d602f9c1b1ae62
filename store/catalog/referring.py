"""What the catalogue refers to in the artifact store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from store.catalog.models import Artifact, ListingRevision, Measurement


def digests() -> Iterator[Any]:
    """JSON values in which the digests stand: the artifacts of versions, in whatever state, icons, and the records of what was measured.

    An artifact whose last version was a draft that was deleted is not among them: its row stays, and `artifacts.record` asks
    for its files again.
    """
    yield from Artifact.objects.filter(versions__isnull=False).distinct().values_list("digest", "manifest").iterator()
    yield from ListingRevision.objects.exclude(icon="").values_list("icon", "small_icon").iterator()
    yield from Measurement.objects.values_list("method", flat=True).iterator()
