"""The child's half of a benchmark's conversation: one JSON line asks, one JSON line answers.

A side is an object whose methods can be asked for by name; the seconds of each answer are taken around the method, in the
child. This module needs nothing but the standard library, since it also runs in the peers' environments.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any


def serve(load: Callable[[dict[str, Any]], Any]) -> None:
    """Reads the options, loads the side, says so, and answers until there are no more lines."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print goes where the log goes
    options = json.loads(sys.stdin.readline())
    side = _answered(answers, lambda: load(options))
    if side is None:
        return
    for line in sys.stdin:
        ask = json.loads(line)
        _answered(answers, lambda ask=ask: getattr(side, ask["do"])(**ask["with"]))  # type: ignore[misc]


def _answered(answers: Any, act: Callable[[], Any]) -> Any:
    """Does what was asked and writes the answer; returns what came of it, None when nothing did."""
    began_at = time.perf_counter()
    value = None
    try:
        value = act()
        seconds = time.perf_counter() - began_at
        answer: dict[str, Any] = {"seconds": seconds, "value": value if isinstance(value, dict) else None}
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}"[:500]}
    answers.write(json.dumps(answer) + "\n")
    answers.flush()
    return value


def resident_bytes() -> int:
    """What the process holds in memory now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
