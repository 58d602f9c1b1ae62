"""How this process holds its memory, where that is Linux with glibc; elsewhere nothing happens.

A step reads all weights once. In pages of 4 KiB they are more than a processor finds in its tables, above all in a virtual machine, where
each search passes through two of them: see docs/performance.md for what pages of 2 MiB gained.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import suppress

import numpy as np

SMALL, LARGE = 4096, 2 * 2**20
PER_LARGE = LARGE // SMALL
PRESENT = 63  # the bit of an entry in /proc/self/pagemap
MADV_HUGEPAGE, MADV_COLLAPSE = 14, 25
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
WORTHWHILE_BYTES = 64 * 2**20  # of weights
KEPT_BYTES, OWN_PAGES_BYTES = 64 * 2**20, 32 * 2**20  # the second is the most that glibc takes


def settle(*, weights_bytes: int) -> None:
    """For a process that has loaded what it serves: freed memory goes back once, and then what stays moves into large pages.

    That takes 0.3 s for 600 MB, up to 3 s where the system has to make room, so few weights stay where they are.
    """
    give_back_freed_memory()
    keep_freed_memory()
    if weights_bytes >= WORTHWHILE_BYTES:
        with suppress(OSError):
            use_large_pages()


def give_back_freed_memory() -> None:
    """Has the allocator return what was freed: reading and packing weights leave up to 250 MB behind. Only glibc needs it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def keep_freed_memory() -> None:
    """Has the allocator keep what a step frees for the next one: handed back and asked for again, its pages cost a prompt of 512 tokens
    up to a quarter of its time.
    """
    option = getattr(ctypes.CDLL(None), "mallopt", None)
    if option is not None:
        option(M_MMAP_THRESHOLD, OWN_PAGES_BYTES)
        option(M_TRIM_THRESHOLD, KEPT_BYTES)


def use_large_pages() -> None:
    """Moves memory in use into pages of 2 MiB, and asks for them where none is in use yet. Raises OSError without /proc."""
    if not sys.platform.startswith("linux") or os.sysconf("SC_PAGE_SIZE") != SMALL:
        return
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
        for start, end in _own_memory():
            madvise(start, end - start, MADV_HUGEPAGE)
            pagemap.seek(start // SMALL * 8)
            entries = np.frombuffer(pagemap.read((end - start) // SMALL * 8), dtype=np.uint64).reshape(-1, PER_LARGE)
            in_use = (entries >> PRESENT).sum(axis=1) > PER_LARGE // 2
            edges = np.flatnonzero(np.diff(in_use, prepend=False, append=False)) * LARGE
            for first, last in edges.reshape(-1, 2).tolist():
                madvise(start + first, last - first, MADV_COLLAPSE)  # where there is no room for it, the small pages stay


def _own_memory() -> Iterator[tuple[int, int]]:
    """The beginning and end of what the process may write and no file is behind, in whole large pages."""
    with open("/proc/self/maps", encoding="utf-8") as maps:
        for line in maps.readlines():
            addresses, may, *_, inode = line.split()[:5]
            name = line.split()[5:]
            first, last = (int(address, 16) for address in addresses.split("-"))
            start, end = -(-first // LARGE) * LARGE, last // LARGE * LARGE
            if may.startswith("rw-p") and inode == "0" and name in ([], ["[heap]"]) and start < end:
                yield start, end
