"""How many tokens an engine makes in a second."""

from __future__ import annotations

import time
from collections import deque

OVER_S = 10.0


class Throughput:
    def __init__(self) -> None:
        self._steps: deque[tuple[float, int]] = deque()  # (time.monotonic(), tokens) of the last OVER_S

    def note(self, tokens: int) -> None:
        now = time.monotonic()
        self._steps.append((now, tokens))
        while self._steps[0][0] < now - OVER_S:
            self._steps.popleft()

    @property
    def tokens_per_s(self) -> float:
        """Over the last OVER_S."""
        since = time.monotonic() - OVER_S
        return sum(tokens for at, tokens in self._steps if at >= since) / OVER_S
