"""Memory in large pages: it says what it said, and what nobody has touched stays untouched."""

from __future__ import annotations

import mmap
import re
from pathlib import Path

from inference.pages import LARGE, use_large_pages

SIZE = 8 * LARGE


def kib_of(field: str) -> int:
    text = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8") if Path("/proc/self/smaps_rollup").exists() else ""
    return sum(map(int, re.findall(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)))


def test_memory_in_use_moves_into_large_pages_and_none_is_taken_that_was_not() -> None:
    used, unused = mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), mmap.mmap(-1, 16 * SIZE, flags=mmap.MAP_PRIVATE)
    used.write(b"weights!" * (SIZE // 8))
    before, large = kib_of("Rss"), kib_of("AnonHugePages")

    use_large_pages()

    assert used[: SIZE + 1] == b"weights!" * (SIZE // 8)
    assert kib_of("Rss") < before + len(unused) // 2 // 1024
    gained = kib_of("AnonHugePages") - large
    assert gained == 0 or gained >= (SIZE - LARGE) // 1024  # none where the system gives none
    unused.close()
