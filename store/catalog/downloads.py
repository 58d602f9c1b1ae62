"""The files of a version, for those who may take them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db.models import F

from store.catalog.models import Listing, Version
from store.errors import NotFound


@dataclass(frozen=True)
class File:
    path: str
    size_bytes: int
    sha256: str


def files_of(version: Version) -> list[File]:
    """By path. A prompt GPT has none: its instructions are no file."""
    listed = version.artifact.manifest["files"] if version.artifact else []
    return sorted((File(file["path"], file["size_bytes"], file["sha256"]) for file in listed), key=lambda file: file.path)


def find(user: Any, *, publisher: str, slug: str, number: str, path: str) -> tuple[Version, File]:
    """That file of a released version. Raises NotFound unless this person may take it."""
    named = {"listing__publisher__slug": publisher, "listing__slug": slug, "number": number}
    version = Version.objects.downloadable_by(user).filter(**named).select_related("artifact").first()
    file = next((file for file in files_of(version) if file.path == path), None) if version is not None else None
    if version is None or file is None:
        raise NotFound
    return version, file


def count(version: Version, file: File) -> None:
    """Notes that `file` is taken from its beginning. A download of the whole is counted once: with its largest file."""
    if file == max(files_of(version), key=lambda other: (other.size_bytes, other.path)):
        Listing.objects.filter(pk=version.listing_id).update(download_count=F("download_count") + 1)
