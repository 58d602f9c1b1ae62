"""The artifact store from the store's side: blobs and manifests by digest. Weights are handed on in pieces; only workers read them."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO
from urllib.parse import urlsplit
from urllib.request import url2pathname

import obstore
from django.conf import settings
from django.utils.translation import gettext as _
from obstore.store import LocalStore, from_url

from inference import protocol
from store.catalog.errors import ArtifactRejected
from store.catalog.models import Artifact

CHUNK_BYTES = 1024 * 1024
MAX_MANIFEST_BYTES = 4 * 1024 * 1024
MAX_FILES = 1000
COPIED_AT_ONCE_BYTES = 5 * 1024**3  # the largest object that a bucket copies by itself
_DIGEST = re.compile(r"[0-9a-f]{64}")


def open_store() -> Any:
    """The object store at ARTIFACT_URL: a folder (`file://`, made when it is not there) or a bucket (`s3://`)."""
    return _open(settings.ARTIFACT_URL)


@lru_cache(maxsize=4)
def _open(url: str) -> Any:
    parts = urlsplit(url)
    if parts.scheme == "file":
        folder = Path(url2pathname(parts.path))
        folder.mkdir(parents=True, exist_ok=True)
        return LocalStore(folder)
    return from_url(url)


@dataclass(frozen=True)
class Spool:
    """A file that was read and hashed, and is not stored yet."""

    sha256: str
    size_bytes: int
    file: IO[bytes]

    def store(self) -> None:
        """Under its sha256; equal bytes are stored once. It outlives a crash of the machine when this returns."""
        key = protocol.blob_key(self.sha256)
        if not _is_kept(key, self.size_bytes):
            self.file.seek(0)
            obstore.put(open_store(), key, self.file, chunk_size=protocol.part_bytes(self.size_bytes))
            make_durable(key)


@contextmanager
def spooled(stream: BinaryIO, *, max_bytes: int | None = None) -> Iterator[Spool]:
    """What `stream` holds, in a temporary file: read in chunks, never in memory. Raises ArtifactRejected beyond `max_bytes`."""
    with tempfile.TemporaryFile(prefix="blob-") as file:
        digest, size = hashlib.sha256(), 0
        while chunk := stream.read(CHUNK_BYTES):
            size += len(chunk)
            if max_bytes is not None and size > max_bytes:
                raise ArtifactRejected(_("The file is larger than %(limit)s bytes.") % {"limit": max_bytes})
            digest.update(chunk)
            file.write(chunk)
        yield Spool(digest.hexdigest(), size, file)


def put_blob(stream: BinaryIO, *, max_bytes: int | None = None) -> tuple[str, int]:
    """Stores what `stream` holds and returns (sha256, size in bytes). Raises ArtifactRejected as `spooled`, and then stores nothing."""
    with spooled(stream, max_bytes=max_bytes) as spool:
        spool.store()
    return spool.sha256, spool.size_bytes


def put_manifest(manifest: protocol.Manifest) -> str:
    """Stores the manifest under its digest, which it returns."""
    key, raw = protocol.manifest_key(manifest.digest), manifest.encode()
    if not _is_kept(key, len(raw)):  # under this digest stands the same
        obstore.put(open_store(), key, raw)
        make_durable(key)
    return manifest.digest


def make_durable(key: str) -> None:
    """Returns when the object outlives a crash of the machine: it and the folders that name it are on the disk.

    A bucket promises as much by itself. Raises FileNotFoundError.
    """
    store = open_store()
    if isinstance(store, LocalStore):
        for path in (key, *map(str, PurePosixPath(key).parents)):
            descriptor = os.open(Path(str(store.prefix)) / path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def remove_torn(folder: str, *, before: datetime) -> int:
    """Removes what a process that was killed while it stored something under `folder` left of it before then; how many there were.

    The object store writes beside the object's name, with a number after a #, and lists no such file. A bucket keeps none.
    """
    store, removed = open_store(), 0
    if isinstance(store, LocalStore):
        for path in (Path(str(store.prefix)) / folder).rglob("*#*"):
            with suppress(FileNotFoundError):  # it was whole just now
                if path.stat().st_mtime < before.timestamp():
                    path.unlink()
                    removed += 1
    return removed


def read_blob(sha256: str, *, max_bytes: int) -> bytes:
    """The bytes of a small blob, verified. Raises ArtifactRejected when it is missing, larger or not what its name says."""
    raw = _read(protocol.blob_key(sha256), max_bytes)
    if hashlib.sha256(raw).hexdigest() != sha256:
        raise ArtifactRejected(_("The file %(name)s was changed in the artifact store.") % {"name": sha256[:12]})
    return raw


async def stream(sha256: str, *, start: int, stop: int) -> AsyncIterator[bytes]:
    """The bytes from `start` up to `stop` of a blob, in chunks as they come; never the whole in memory. Raises ArtifactRejected."""
    for place in protocol.places_of(protocol.blob_key(sha256)):
        with suppress(FileNotFoundError):
            return _chunks(await obstore.get_async(open_store(), place, options={"range": (start, stop)}))
    raise ArtifactRejected(_("A file is missing in the artifact store."))


async def _chunks(found: Any) -> AsyncIterator[bytes]:
    async for chunk in found.stream(min_chunk_size=CHUNK_BYTES):
        yield bytes(chunk)


def record(digest: str) -> Artifact:
    """The artifact whose manifest a worker stored under `digest`; its row is made when there is none yet.

    Verifies the manifest's digest, its paths and kinds of file, and that every file is there in full, for good: not about to
    be collected (`store.catalog.collecting`), nor to be lost with the machine. Workers verify the bytes themselves when they
    read them. Raises ArtifactRejected.
    """
    manifest = read_manifest(digest)
    for file in manifest.files:
        _check_file(file)
    _require_kept(protocol.manifest_key(digest), len(manifest.encode()), path=_("The list of files"))
    artifact, _created = Artifact.objects.get_or_create(
        digest=digest,
        defaults={
            "revision": manifest.revision,
            "manifest": {"format": 1, "files": [file.to_json() for file in manifest.files]},
            "size_bytes": manifest.size_bytes,
        },
    )
    return artifact


def read_manifest(digest: str) -> protocol.Manifest:
    """The manifest of that digest, verified. Raises ArtifactRejected."""
    if not _DIGEST.fullmatch(digest):
        raise ArtifactRejected(_("%(digest)s is not a sha256 digest.") % {"digest": digest[:80]})
    raw = _read(protocol.manifest_key(digest), MAX_MANIFEST_BYTES)
    if hashlib.sha256(raw).hexdigest() != digest:
        raise ArtifactRejected(_("The list of files was changed in the artifact store."))
    try:
        manifest = protocol.Manifest.decode(raw)
    except ValueError as error:
        raise ArtifactRejected(_("The list of files can't be read: %(error)s") % {"error": error}) from error
    if not 0 < len(manifest.files) <= MAX_FILES or len({file.path for file in manifest.files}) != len(manifest.files):
        raise ArtifactRejected(_("The list of files is empty, too long or names a file twice."))
    return manifest


def _check_file(file: protocol.ManifestFile) -> None:
    path = PurePosixPath(file.path)
    if path.is_absolute() or ".." in path.parts or "\\" in file.path or str(path) != file.path:
        raise ArtifactRejected(_("%(path)s is not a path inside a folder.") % {"path": file.path})
    if path.suffix not in protocol.BLOB_SUFFIXES:
        raise ArtifactRejected(_("%(path)s is neither safetensors nor JSON nor text, so it can't be taken.") % {"path": file.path})
    if not _DIGEST.fullmatch(file.sha256):
        raise ArtifactRejected(_("%(path)s has no sha256 digest.") % {"path": file.path})
    _require_kept(protocol.blob_key(file.sha256), file.size_bytes, path=file.path)


def _require_kept(key: str, size_bytes: int, *, path: str) -> None:
    """Raises ArtifactRejected unless the object is in its place, in full. What was moved aside is put back first."""
    if _is_kept(key, size_bytes):
        return
    with suppress(FileNotFoundError):  # it was never there, or somebody else has put it back
        move(protocol.condemned_key(key), key)
    if not _is_kept(key, size_bytes):
        raise ArtifactRejected(_("%(path)s is missing in the artifact store, or not there in full.") % {"path": path})


def move(key: str, to: str) -> None:
    """Has the object under another key, as if it was stored now; there before it is gone here. Raises FileNotFoundError."""
    store = open_store()
    if isinstance(store, LocalStore):
        obstore.copy(store, key, to)
        os.utime(Path(str(store.prefix)) / to)
    elif (size_bytes := obstore.head(store, key)["size"]) <= COPIED_AT_ONCE_BYTES:
        obstore.copy(store, key, to)
    else:
        with tempfile.TemporaryFile(prefix="blob-") as file:  # obstore cannot read in the midst of writing
            for chunk in obstore.get(store, key).stream(min_chunk_size=CHUNK_BYTES):
                file.write(chunk)
            file.seek(0)
            obstore.put(store, to, file, chunk_size=protocol.part_bytes(size_bytes))
    make_durable(to)
    with suppress(FileNotFoundError):
        obstore.delete(store, key)


def _is_kept(key: str, size_bytes: int) -> bool:
    """Whether the object is in its place, in full; then it is made durable: whoever stores the same may still be at it."""
    try:
        if obstore.head(open_store(), key)["size"] != size_bytes:
            return False
        make_durable(key)
    except FileNotFoundError:
        return False
    return True


def _read(key: str, max_bytes: int) -> bytes:
    for place in protocol.places_of(key):
        with suppress(FileNotFoundError):
            if obstore.head(open_store(), place)["size"] > max_bytes:
                raise ArtifactRejected(_("A file is larger than %(limit)s bytes.") % {"limit": max_bytes})
            return bytes(obstore.get(open_store(), place).bytes())
    raise ArtifactRejected(_("A file is missing in the artifact store."))
