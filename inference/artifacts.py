"""The artifact store as a worker sees it: folders by the digest of their manifest, single files by sha256.

What is read is verified while it streams to disk; a file that is not what its name says never gets a place in the cache.
Every process of a machine may share one cache: work on one digest is serialised by a lock file, and a folder or a file
appears in the cache by a rename, complete or not at all.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlparse

import obstore
import obstore.exceptions
from filelock import FileLock
from obstore.store import LocalStore, from_url

from inference.protocol import BLOB_SUFFIXES, Manifest, ManifestFile, blob_key, manifest_key, part_bytes, places_of

CHUNK_BYTES = 4 * 1024 * 1024
MAX_FILES = 512
MAX_MANIFEST_BYTES = 1024 * 1024
MAX_TEXT_BYTES = 128 * 1024 * 1024  # any file but safetensors; the largest tokenizers have 35 MB
MAX_TENSORS_BYTES = 512 * 1024**3
KEPT_AT_LEAST_S = 600.0  # a folder asked for within this time may be about to be opened, and is not evicted

_PATH_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,199}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
MAX_PATH_PARTS = 4

Done = Callable[[float], object]  # told the share done, 0 to 1


class ArtifactError(Exception):
    """Something is wrong with an artifact; the message names the file."""


class ArtifactRejected(ArtifactError):
    """This folder may not become an artifact."""


class ArtifactMissing(ArtifactError):
    """The artifact store does not have it."""


class ArtifactCorrupt(ArtifactError):
    """The artifact store has something else under this name."""


class ArtifactUnreachable(ArtifactError):
    """The artifact store could not be asked."""


class ArtifactStore:
    """Client of the artifact store at `url`: `file:///folder` or `s3://bucket/prefix` (credentials from the environment)."""

    def __init__(self, url: str) -> None:
        if url.startswith("file://"):
            Path(unquote(urlparse(url).path)).mkdir(parents=True, exist_ok=True)
        self._store = from_url(url)

    # ------------------------------------------------------------ writing

    def put_folder(self, folder: Path, *, names: Iterable[str] | None = None, done: Done | None = None) -> Manifest:
        """Stores the files of `folder` (all, or those `names` lists) and returns their manifest. Raises ArtifactRejected.

        What the store already has is not sent again, so a second call with the same files only reads them once.
        """
        paths = sorted(names) if names is not None else _relative_files(folder)
        if not paths:
            raise ArtifactRejected(f"{folder.name} has no files")
        if len(paths) > MAX_FILES:
            raise ArtifactRejected(f"{folder.name} has {len(paths)} files; an artifact has at most {MAX_FILES}")
        for path in paths:
            check_file(folder, path)
        total = sum((folder / path).stat().st_size for path in paths) or 1
        files = []
        so_far = 0
        for path in paths:
            file = _describe(folder / path, path)
            self._upload(folder / path, file)
            files.append(file)
            so_far += file.size_bytes
            if done is not None:
                done(so_far / total)
        manifest = Manifest(tuple(files))
        raw = manifest.encode()
        self._write(manifest_key(manifest.digest), iter([raw]), size_bytes=len(raw))
        return manifest

    def put_file(self, path: Path) -> ManifestFile:
        """Stores one file as a blob. Raises ArtifactRejected."""
        check_file(path.parent, path.name)
        file = _describe(path, path.name)
        self._upload(path, file)
        return file

    def remove(self, digest: str, *, kept: str) -> None:
        """Removes an artifact that nothing else can refer to, but for the files it shares with the artifact `kept`."""
        shared = {file.sha256 for file in self.manifest(kept).files}
        blobs = [blob_key(file.sha256) for file in self.manifest(digest).files if file.sha256 not in shared]
        try:
            obstore.delete(self._store, [manifest_key(digest), *blobs])
        except FileNotFoundError:
            return
        except obstore.exceptions.BaseError as error:
            raise ArtifactUnreachable(f"{digest} could not be removed: {_first_line(error)}") from error

    def _upload(self, source: Path, file: ManifestFile) -> None:
        key = blob_key(file.sha256)
        if self._size_of(key) == file.size_bytes:
            with suppress(FileNotFoundError):  # moved aside just now
                return self._make_durable(key)  # whoever stores the same may still be at it
        self._write(key, _unchanged(source, file), size_bytes=file.size_bytes)

    def _write(self, key: str, chunks: Iterator[bytes], *, size_bytes: int) -> None:
        try:  # an exception from `chunks` aborts it
            obstore.put(self._store, key, chunks, use_multipart=True, chunk_size=part_bytes(size_bytes))
        except (obstore.exceptions.BaseError, FileNotFoundError) as error:  # the second: there is no such bucket
            raise ArtifactUnreachable(f"{key} could not be written: {_first_line(error)}") from error
        self._make_durable(key)

    def _make_durable(self, key: str) -> None:
        """Returns when the object outlives a crash of the machine, which a bucket promises by itself. Raises FileNotFoundError."""
        if isinstance(self._store, LocalStore):
            for path in (key, *map(str, PurePosixPath(key).parents)):
                descriptor = os.open(Path(str(self._store.prefix)) / path, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)

    def _size_of(self, key: str) -> int | None:
        try:
            return int(obstore.head(self._store, key)["size"])
        except FileNotFoundError:
            return None
        except obstore.exceptions.BaseError as error:
            raise ArtifactUnreachable(f"{key} could not be looked up: {_first_line(error)}") from error

    # ------------------------------------------------------------ reading

    def has(self, digest: str) -> bool:
        """True when the manifest and every file of it are there, in full length."""
        try:
            return all(self._size_of(blob_key(file.sha256)) == file.size_bytes for file in self.manifest(digest).files)
        except ArtifactMissing:
            return False

    def manifest(self, digest: str) -> Manifest:
        """The manifest named `digest`, checked against it. Raises ArtifactMissing or ArtifactCorrupt."""
        try:
            manifest = Manifest.decode(self._whole(manifest_key(digest), digest, limit_bytes=MAX_MANIFEST_BYTES))
        except ValueError as error:
            raise ArtifactCorrupt(f"{digest} is not a manifest: {error}") from error
        if len(manifest.files) > MAX_FILES or len({file.path for file in manifest.files}) != len(manifest.files):
            raise ArtifactCorrupt(f"the manifest {digest} lists too many files or one twice")
        for file in manifest.files:
            if reason := _unsafe(file.path):
                raise ArtifactCorrupt(f"the manifest {digest} lists {file.path!r}: {reason}")
            _require_sha256(file.sha256)
        return manifest

    def read(self, sha256: str, *, limit_bytes: int = MAX_TEXT_BYTES) -> bytes:
        """The blob in memory, for what is read once. Raises an ArtifactError."""
        return self._whole(blob_key(sha256), sha256, limit_bytes=limit_bytes)

    def _whole(self, key: str, digest: str, *, limit_bytes: int) -> bytes:
        _require_sha256(digest)
        raw = b"".join(self._chunks(key, limit_bytes=limit_bytes))
        if hashlib.sha256(raw).hexdigest() != digest:
            raise ArtifactCorrupt(f"what is stored as {digest} is another one")
        return raw

    def materialise(self, digest: str, cache: Path, *, done: Done | None = None) -> Path:
        """The folder of the artifact in `cache`, fetched and verified if it is not there yet. Raises an ArtifactError."""
        _require_sha256(digest)
        folder = cache / "artifacts" / digest
        if not folder.exists():
            with _locked(cache, digest):
                if not folder.exists():
                    self._materialise(digest, cache, folder, done=done)
        with suppress(OSError):
            os.utime(folder)  # when it was last asked for, for `evict`
        return folder

    def _materialise(self, digest: str, cache: Path, folder: Path, *, done: Done | None) -> None:
        manifest = self.manifest(digest)
        total = manifest.size_bytes or 1
        so_far = 0
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as scratch:
            target = Path(scratch) / "folder"
            for file in manifest.files:
                place = target / file.path
                place.parent.mkdir(parents=True, exist_ok=True)
                self._link(file, cache, place)
                so_far += file.size_bytes
                if done is not None:
                    done(so_far / total)
            target.rename(folder)

    def _link(self, file: ManifestFile, cache: Path, place: Path) -> None:
        """Puts the file's blob at `place` as a hard link; tries again when the blob was evicted in between."""
        for _ in range(3):
            with suppress(FileNotFoundError):
                os.link(self.fetch(file.sha256, cache, size_bytes=file.size_bytes), place)
                return
        raise ArtifactUnreachable(f"{file.path} was evicted from the cache while it was being linked: the cache is too small")

    def fetch(self, sha256: str, cache: Path, *, size_bytes: int | None = None) -> Path:
        """The blob in `cache`, fetched and verified if it is not there yet. Raises an ArtifactError."""
        _require_sha256(sha256)
        blob = cache / "blobs" / sha256
        if not blob.exists():
            with _locked(cache, sha256):
                if not blob.exists():
                    self._fetch(sha256, blob, size_bytes=size_bytes)
        return blob

    def _fetch(self, sha256: str, blob: Path, *, size_bytes: int | None) -> None:
        blob.parent.mkdir(parents=True, exist_ok=True)
        limit = MAX_TENSORS_BYTES if size_bytes is None else size_bytes
        digest = hashlib.sha256()
        with tempfile.NamedTemporaryFile(dir=blob.parent, prefix=".", delete=False) as partial:
            try:
                for chunk in self._chunks(blob_key(sha256), limit_bytes=limit):
                    digest.update(chunk)
                    partial.write(chunk)
                partial.flush()
                found = digest.hexdigest()
                if found != sha256:
                    raise ArtifactCorrupt(f"the file stored as {sha256} has sha256 {found}")
                if size_bytes is not None and partial.tell() != size_bytes:
                    raise ArtifactCorrupt(f"the file {sha256} has {partial.tell()} bytes, its manifest says {size_bytes}")
                os.chmod(partial.name, 0o444)  # shared by hard links: nobody may change it in place
                os.rename(partial.name, blob)
            except BaseException:
                os.unlink(partial.name)
                raise

    def _chunks(self, key: str, *, limit_bytes: int) -> Iterator[bytes]:
        """The object's bytes in pieces. Raises ArtifactCorrupt as soon as there are more than `limit_bytes`."""
        read = 0
        try:
            for chunk in self._found(key).stream(min_chunk_size=CHUNK_BYTES):
                read += len(chunk)
                if read > limit_bytes:
                    raise ArtifactCorrupt(f"{key} is longer than the {limit_bytes} bytes it should have")
                yield bytes(chunk)
        except FileNotFoundError as error:
            raise ArtifactMissing(f"the artifact store has no {key}") from error
        except obstore.exceptions.BaseError as error:
            raise ArtifactUnreachable(f"{key} could not be read: {_first_line(error)}") from error

    def _found(self, key: str) -> obstore.GetResult:
        """Also of what the store has moved aside. Raises FileNotFoundError."""
        *others, last = places_of(key)
        for place in others:
            with suppress(FileNotFoundError):
                return obstore.get(self._store, place)
        return obstore.get(self._store, last)


def evict(cache: Path, *, budget_bytes: int) -> int:
    """Removes the folders asked for longest ago until the cache is within its budget; returns the bytes freed.

    A process that has opened a folder's files goes on reading them: the system keeps them until they are closed.
    """
    blobs = {blob.stat().st_ino: blob for blob in _files(cache / "blobs")}
    total = sum(blob.stat().st_size for blob in blobs.values())
    freed = 0
    folders = cache / "artifacts"
    by_age = sorted(folders.iterdir(), key=lambda folder: folder.stat().st_mtime) if folders.exists() else []
    for folder in by_age:
        if total - freed <= budget_bytes or time.time() - folder.stat().st_mtime < KEPT_AT_LEAST_S:
            break
        with _locked(cache, folder.name):
            inodes = [file.stat().st_ino for file in folder.rglob("*") if file.is_file()]
            shutil.rmtree(folder)
            for blob in (blobs[inode] for inode in inodes if inode in blobs):
                if blob.exists() and blob.stat().st_nlink == 1:
                    freed += blob.stat().st_size
                    blob.unlink()
    return freed


def _files(folder: Path) -> list[Path]:
    return [file for file in folder.iterdir() if not file.name.startswith(".")] if folder.exists() else []


def _locked(cache: Path, name: str) -> FileLock:
    locks = cache / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    return FileLock(locks / name)


def _relative_files(folder: Path) -> list[str]:
    """Every file below `folder` with forward slashes; links are listed, never followed."""
    found = []
    for where, folders, names in os.walk(folder, followlinks=False):
        links = [name for name in folders if (Path(where) / name).is_symlink()]
        found += [(Path(where) / name).relative_to(folder).as_posix() for name in [*names, *links]]
    return sorted(found)


def check_file(folder: Path, path: str) -> None:
    """Raises ArtifactRejected when this file may not be part of an artifact."""
    if reason := _unsafe(path):
        raise ArtifactRejected(f"{path}: {reason}")
    place = folder
    for part in Path(path).parts:
        place = place / part
        if place.is_symlink():
            raise ArtifactRejected(f"{path}: links are not accepted; put the file itself there")
    if not stat.S_ISREG(place.stat().st_mode):
        raise ArtifactRejected(f"{path}: only plain files are accepted")
    limit = MAX_TENSORS_BYTES if place.suffix == ".safetensors" else MAX_TEXT_BYTES
    if place.stat().st_size > limit:
        raise ArtifactRejected(f"{path}: {place.stat().st_size} bytes; at most {limit} are accepted")


def _unsafe(path: str) -> str:
    """Why `path` may not stand in a manifest; empty when it may."""
    parts = path.split("/")
    if len(parts) > MAX_PATH_PARTS or not all(_PATH_PART.fullmatch(part) for part in parts):
        return f"paths are relative, at most {MAX_PATH_PARTS} deep, of Latin letters, digits and . _ + -"
    if Path(path).suffix not in BLOB_SUFFIXES:
        return f"only {', '.join(sorted(BLOB_SUFFIXES))} files are accepted: nothing that can carry code"
    return ""


def _require_sha256(value: str) -> None:
    if not _SHA256.fullmatch(value):
        raise ArtifactCorrupt(f"{value!r} is not a sha256")


def manifest_of(folder: Path) -> Manifest:
    """What names the folder's files, wherever they lie; nothing is stored."""
    return Manifest(tuple(_describe(folder / path, path) for path in _relative_files(folder)))


def _describe(source: Path, path: str) -> ManifestFile:
    """Reads the file once for both of its digests."""
    size = source.stat().st_size
    sha256 = hashlib.sha256()
    git = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    read = 0
    for chunk in _read(source):
        sha256.update(chunk)
        git.update(chunk)
        read += len(chunk)
    if read != size:
        raise ArtifactRejected(f"{path} changed while it was read")
    return ManifestFile(path=path, size_bytes=size, sha256=sha256.hexdigest(), git_oid=git.hexdigest())


def _unchanged(source: Path, file: ManifestFile) -> Iterator[bytes]:
    """The file's content; raises at its end when it is no longer what was described, which aborts an upload."""
    sha256 = hashlib.sha256()
    for chunk in _read(source):
        sha256.update(chunk)
        yield chunk
    if sha256.hexdigest() != file.sha256:
        raise ArtifactRejected(f"{file.path} changed while it was stored")


def _read(source: Path) -> Iterator[bytes]:
    with source.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
