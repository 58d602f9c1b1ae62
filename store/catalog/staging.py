"""Where the pieces of an upload wait in the artifact store until the file is whole. A piece is named once and never changed."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from typing import IO, BinaryIO, cast

import obstore

from store.catalog import artifacts

FOLDER = "uploads"


def put(name: str, piece: IO[bytes]) -> None:
    """Stores the piece from its beginning. It outlives a crash of the machine when this returns."""
    piece.seek(0)
    obstore.put(artifacts.open_store(), _key(name), piece)
    artifacts.make_durable(_key(name))


def joined(names: Sequence[str]) -> BinaryIO:
    """The pieces one after the other, read as they are asked for. Reading raises FileNotFoundError where one is not there."""
    return cast(BinaryIO, io.BufferedReader(_Joined(_chunks(names)), artifacts.CHUNK_BYTES))


def remove(names: Sequence[str]) -> None:
    """What is not there is no error: somebody else removed it."""
    for name in names:
        with suppress(FileNotFoundError):
            obstore.delete(artifacts.open_store(), _key(name))


def waiting() -> Iterator[tuple[str, datetime]]:
    """Every piece that is there, with the time when it was stored."""
    for page in obstore.list(artifacts.open_store(), FOLDER):
        for found in page:
            yield found["path"].removeprefix(f"{FOLDER}/"), found["last_modified"]


def remove_torn(*, before: datetime) -> int:
    """Removes what a server that was killed while it stored a piece left of it before then; returns how many there were."""
    return artifacts.remove_torn(FOLDER, before=before)


def _key(name: str) -> str:
    return f"{FOLDER}/{name}"


def _chunks(names: Sequence[str]) -> Iterator[bytes]:
    for name in names:
        for chunk in obstore.get(artifacts.open_store(), _key(name)).stream(min_chunk_size=artifacts.CHUNK_BYTES):
            yield bytes(chunk)


class _Joined(io.RawIOBase):
    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = chunk
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size
