"""The adapters a vLLM server holds for an engine: loaded when first asked for, held while in use, at most so many.

    with adapters.using(digest, source, wanted=lambda: …):      # waits until the server has it
        …

The server names an adapter by its digest and reads it from the worker's cache, so both see the same folder. Adapters that another
engine had loaded are taken over; one that an operator gave another name is left alone. Used by the threads of many requests.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from inference.lora_settings import AdapterError
from inference.vllm_server import VllmFailed, VllmServer

log = structlog.get_logger(__name__)

DIGEST = re.compile(r"[0-9a-f]{64}")


class Unwanted(Exception):
    """Nobody waits for the adapter any more."""


@dataclass(eq=False)
class _Entry:
    users: int = 0
    loaded: bool = False


class VllmAdapters:
    def __init__(self, server: VllmServer, *, at_most: int, present: Iterable[str] = ()) -> None:
        """`present` are the names of those the server has."""
        self._server = server
        self._at_most = at_most
        self._changed = threading.Condition()  # guards everything below
        self._entries = OrderedDict((name, _Entry(loaded=True)) for name in sorted(present) if DIGEST.fullmatch(name))
        self._loads = self._evictions = 0

    @contextmanager
    def using(self, digest: str, source: Callable[[], str], *, wanted: Callable[[], bool]) -> Iterator[None]:
        """Raises AdapterError or VllmFailed when the server cannot have it, Unwanted when it is not `wanted` any more."""
        entry = self._take(digest, source, wanted)
        try:
            yield
        finally:
            with self._changed:
                entry.users -= 1
                self._changed.notify_all()

    def lost(self, digest: str) -> None:
        """The server says that it has no such adapter; whoever asks next has it loaded again."""
        with self._changed:
            entry = self._entries.get(digest)
            if entry is not None and entry.loaded:
                del self._entries[digest]

    def look_again(self) -> None:
        """To be called when something that is `wanted` is not any more."""
        with self._changed:
            self._changed.notify_all()

    def stats(self) -> dict[str, int]:
        with self._changed:
            held = [entry for entry in self._entries.values() if entry.loaded]
            return {
                "adapters": len(held),
                "adapters_in_use": sum(entry.users > 0 for entry in held),
                "adapters_loading": len(self._entries) - len(held),
                "adapter_loads": self._loads,
                "adapter_evictions": self._evictions,
            }

    def _take(self, digest: str, source: Callable[[], str], wanted: Callable[[], bool]) -> _Entry:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: not wanted() or self._may_go_on(digest))
                if not wanted():
                    raise Unwanted
                entry = self._entries.get(digest)
                if entry is not None:
                    entry.users += 1
                    self._entries.move_to_end(digest)
                    return entry
                excess = self._forget_unused()
                entry = self._entries[digest] = _Entry(users=1)
            for name in excess:
                self._unload(name)
            self._load(digest, entry, source)
            return entry

    def _may_go_on(self, digest: str) -> bool:
        """Whether the adapter is here, or there is room for it."""
        entry = self._entries.get(digest)
        if entry is not None:
            return entry.loaded
        return sum(not other.loaded or other.users > 0 for other in self._entries.values()) < self._at_most

    def _forget_unused(self) -> list[str]:
        """Those that must go for one more to come, unused the longest first."""
        idle = [name for name, entry in self._entries.items() if entry.loaded and not entry.users]
        excess = idle[: max(len(self._entries) + 1 - self._at_most, 0)]
        for name in excess:
            del self._entries[name]
        self._evictions += len(excess)
        return excess

    def _unload(self, name: str) -> None:
        try:
            self._server.unload_adapter(name)
        except VllmFailed as error:
            log.warning("adapter not unloaded", adapter=name, error=str(error))

    def _load(self, digest: str, entry: _Entry, source: Callable[[], str]) -> None:
        try:
            self._server.load_adapter(digest, source())
        except BaseException:
            with self._changed:
                if self._entries.get(digest) is entry:
                    del self._entries[digest]
                self._changed.notify_all()
            raise
        with self._changed:
            entry.loaded = True
            self._loads += 1
            self._changed.notify_all()


def source_of(files: Path | Callable[[], Path] | None) -> Callable[[], str]:
    """What fetches the adapter's folder, and says where it is. Raises AdapterError where it cannot be had."""

    def fetch() -> str:
        if files is None:
            raise AdapterError("its files are not here")
        try:
            return str(files if isinstance(files, Path) else files())
        except Exception as error:  # whatever a store of artifacts raises
            raise AdapterError(f"it could not be read: {type(error).__name__}: {error}") from error

    return fetch
