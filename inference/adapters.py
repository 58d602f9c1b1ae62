"""The adapters an engine keeps in memory: loaded beside the running batch, within a budget of bytes, held while in use.

    hold = store.hold(digest, folder)      # when a request arrives; begins to load what is not here
    hold.adapter, hold.failure             # one of them, once it is settled
    hold.release()                         # when the request ends, however it does

An adapter is dropped only while nobody holds it, the longest unused first. When all that is here is held, loading waits until
something is released, so the budget is kept whatever is asked for. Loading happens in threads that live only as long as
there is something to load; everything else is called by the engine's thread.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import structlog
import torch

from inference.config import GPTConfig
from inference.lora import Adapter
from inference.lora_settings import AdapterError

log = structlog.get_logger(__name__)

Source = Path | Callable[[], Path]  # the adapter's folder, or what fetches it

LOADERS = 4  # at once: some may be waiting for their files


class _Unwanted(Exception):
    """Nobody waits for the adapter any more."""


@dataclass(eq=False)
class _Entry:
    digest: str
    source: Source
    base: str
    urgent: bool = False
    holders: int = 0
    size_bytes: int = 0  # reserved
    adapter: Adapter | None = None
    failure: str = ""


class Hold:
    """A request's claim on an adapter."""

    def __init__(self, store: AdapterStore, entry: _Entry) -> None:
        self._store = store
        self._entry = entry
        self._released = False

    @property
    def settled(self) -> bool:
        return self._entry.adapter is not None or bool(self._entry.failure)

    @property
    def adapter(self) -> Adapter | None:
        return self._entry.adapter

    @property
    def failure(self) -> str:
        """Why the adapter cannot be used; empty when it can, or may yet."""
        return self._entry.failure

    def release(self) -> None:
        """To be called once; more often does no harm."""
        if not self._released:
            self._released = True
            self._store._release(self._entry)


class AdapterStore:
    def __init__(self, config: GPTConfig, *, dtype: torch.dtype, device: torch.device, budget_bytes: int) -> None:
        """`dtype` and `device` are those the base is served in; the adapters themselves stay in the host's memory."""
        self._config = config
        self._dtype = dtype
        self._pinned = device.type == "cuda"
        self._budget_bytes = budget_bytes
        self._changed = threading.Condition()  # guards everything below
        self._entries: OrderedDict[str, _Entry] = OrderedDict()  # the longest unused first
        self._queue: list[_Entry] = []
        self._loaders = 0
        self._used_bytes = 0
        self._closed = False
        self._loads = self._failures = self._hits = self._evictions = 0

    def hold(self, digest: str, source: Source | None, *, base: str = "", urgent: bool = True) -> Hold:
        """A claim on the adapter, for a base with the digest `base`. Raises AdapterError when it is not here and has no source."""
        with self._changed:
            entry = self._entries.get(digest)
            if entry is None:
                if source is None:
                    raise AdapterError("its files are not here")
                entry = self._entries[digest] = _Entry(digest, source, base)
                self._queue.append(entry)
                if self._loaders < LOADERS:
                    self._loaders += 1
                    threading.Thread(target=self._load_queued, name="adapter-loader", daemon=True).start()
            elif entry.adapter is not None:
                self._hits += 1
            entry.urgent = entry.urgent or urgent
            entry.holders += 1
            self._entries.move_to_end(digest)
            return Hold(self, entry)

    def wait(self, holds: Iterable[Hold], *, timeout_s: float) -> None:
        """Until one of the holds is settled."""
        with self._changed:
            self._changed.wait_for(lambda: any(hold.settled for hold in holds), timeout_s)

    def close(self) -> None:
        """Ends the loading of what is not loaded yet."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def stats(self) -> dict[str, int]:
        with self._changed:
            held = [entry for entry in self._entries.values() if entry.adapter is not None]
            return {
                "adapters": len(held),
                "adapters_in_use": sum(entry.holders > 0 for entry in held),
                "adapters_loading": len(self._entries) - len(held),
                "adapter_bytes": self._used_bytes,
                "adapter_loads": self._loads,
                "adapter_failures": self._failures,
                "adapter_hits": self._hits,
                "adapter_evictions": self._evictions,
            }

    def _release(self, entry: _Entry) -> None:
        with self._changed:
            entry.holders -= 1
            if entry in self._queue and not entry.holders:
                self._queue.remove(entry)
                del self._entries[entry.digest]
            elif self._entries.get(entry.digest) is entry:
                self._entries.move_to_end(entry.digest)
            self._changed.notify_all()

    # ------------------------------------------------------------ in the loading threads

    def _load_queued(self) -> None:
        while True:
            with self._changed:
                if not self._queue or self._closed:
                    self._loaders -= 1
                    return
                entry = min(self._queue, key=lambda entry: not entry.urgent)  # the first of them
                self._queue.remove(entry)
            self._load(entry)

    def _load(self, entry: _Entry) -> None:
        adapter, failure = None, ""
        try:
            folder = entry.source if isinstance(entry.source, Path) else entry.source()
            adapter = Adapter.load(
                folder,
                self._config,
                dtype=self._dtype,
                base=entry.base,
                pinned=self._pinned,
                admit=lambda size_bytes: self._reserve(entry, size_bytes),
            )
        except _Unwanted:
            return
        except AdapterError as error:
            failure = f"The adapter cannot be used: {error}"
        except Exception as error:  # the edge of the thread: whoever waits for this adapter must hear of it
            log.warning("adapter not loaded", adapter=entry.digest, error=repr(error))
            failure = f"The adapter could not be read: {type(error).__name__}: {error}"
        with self._changed:
            entry.adapter, entry.failure = adapter, failure
            if failure:
                self._failures += 1
                self._forget(entry)
            else:
                self._loads += 1
            self._changed.notify_all()

    def _reserve(self, entry: _Entry, size_bytes: int) -> None:
        """Waits until the adapter fits into the budget. Raises AdapterError when it never will, _Unwanted when nobody waits."""
        if size_bytes > self._budget_bytes:
            raise AdapterError(f"it takes {_mb(size_bytes)} MB; this engine keeps at most {_mb(self._budget_bytes)} MB of adapters")
        with self._changed:
            while True:
                if not entry.holders or self._closed:
                    self._forget(entry)
                    raise _Unwanted
                self._evict(self._used_bytes + size_bytes - self._budget_bytes)
                if self._used_bytes + size_bytes <= self._budget_bytes:
                    entry.size_bytes = size_bytes
                    self._used_bytes += size_bytes
                    return
                self._changed.wait()

    def _evict(self, excess_bytes: int) -> None:
        """Drops what nobody holds, as far as that is needed and enough."""
        idle = [entry for entry in self._entries.values() if entry.adapter is not None and not entry.holders]
        if sum(entry.size_bytes for entry in idle) < excess_bytes:
            return
        for entry in idle:
            if excess_bytes <= 0:
                return
            excess_bytes -= entry.size_bytes
            self._forget(entry)
            self._evictions += 1

    def _forget(self, entry: _Entry) -> None:
        if self._entries.get(entry.digest) is entry:
            del self._entries[entry.digest]
        self._used_bytes -= entry.size_bytes
        entry.size_bytes, entry.adapter = 0, None


def _mb(size_bytes: int) -> int:
    return -(-size_bytes // 2**20)
