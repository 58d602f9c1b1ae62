"""The artifact store from the store's side: blobs and manifests by digest. Weights are handed on in pieces; only workers read them."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO
from urllib.parse import urlsplit
from urllib.request import url2pathname

import obstore
from django.conf import settings
from django.utils.translation import gettext as _
from obstore.exceptions import AlreadyExistsError
from obstore.store import LocalStore, from_url

from inference import protocol
from store.catalog.errors import ArtifactRejected
from store.catalog.models import Artifact

CHUNK_BYTES = 1024 * 1024
MAX_MANIFEST_BYTES = 4 * 1024 * 1024
MAX_FILES = 1000
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
        """Under its sha256; equal bytes are stored once."""
        key = protocol.blob_key(self.sha256)
        if not _has(key):
            self.file.seek(0)
            obstore.put(open_store(), key, self.file)


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
    with suppress(AlreadyExistsError):  # under this digest stands the same
        obstore.put(open_store(), protocol.manifest_key(manifest.digest), manifest.encode(), mode="create")
    return manifest.digest


def read_blob(sha256: str, *, max_bytes: int) -> bytes:
    """The bytes of a small blob, verified. Raises ArtifactRejected when it is missing, larger or not what its name says."""
    raw = _read(protocol.blob_key(sha256), max_bytes)
    if hashlib.sha256(raw).hexdigest() != sha256:
        raise ArtifactRejected(_("The file %(name)s was changed in the artifact store.") % {"name": sha256[:12]})
    return raw


async def stream(sha256: str, *, start: int, stop: int) -> AsyncIterator[bytes]:
    """The bytes from `start` up to `stop` of a blob, in chunks as they come; never the whole in memory. Raises ArtifactRejected."""
    try:
        found = await obstore.get_async(open_store(), protocol.blob_key(sha256), options={"range": (start, stop)})
    except FileNotFoundError as error:
        raise ArtifactRejected(_("A file is missing in the artifact store.")) from error
    return _chunks(found)


async def _chunks(found: Any) -> AsyncIterator[bytes]:
    async for chunk in found.stream(min_chunk_size=CHUNK_BYTES):
        yield bytes(chunk)


def record(digest: str) -> Artifact:
    """The artifact whose manifest a worker stored under `digest`; its row is made when there is none yet.

    Verifies the manifest's digest, its paths and kinds of file, and that every file is there in full. Workers verify
    the bytes themselves when they read them. Raises ArtifactRejected.
    """
    if (known := Artifact.objects.filter(digest=digest).first()) is not None:
        return known
    manifest = read_manifest(digest)
    for file in manifest.files:
        _check_file(file)
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
    try:
        size_bytes = obstore.head(open_store(), protocol.blob_key(file.sha256))["size"]
    except FileNotFoundError as error:
        raise ArtifactRejected(_("%(path)s is missing in the artifact store.") % {"path": file.path}) from error
    if size_bytes != file.size_bytes:
        raise ArtifactRejected(_("%(path)s is not complete in the artifact store.") % {"path": file.path})


def _has(key: str) -> bool:
    try:
        obstore.head(open_store(), key)
    except FileNotFoundError:
        return False
    return True


def _read(key: str, max_bytes: int) -> bytes:
    try:
        if obstore.head(open_store(), key)["size"] > max_bytes:
            raise ArtifactRejected(_("A file is larger than %(limit)s bytes.") % {"limit": max_bytes})
        return bytes(obstore.get(open_store(), key).bytes())
    except FileNotFoundError as error:
        raise ArtifactRejected(_("A file is missing in the artifact store.")) from error
