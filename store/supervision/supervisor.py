"""Starts the processes of an installation in order, keeps them running, and stops them with the broker last.

Only the main thread starts processes: where the kernel offers it (Linux), each is told to end when that thread does, so
that a killed supervisor leaves nothing behind.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import IO

from store.supervision.errors import CannotStart
from store.supervision.processes import ProcessSpec

PR_SET_PDEATHSIG = 1  # linux/prctl.h
POLL_S = 0.1
FIRST_RESTART_S = 1.0
LONGEST_RESTART_S = 30.0
STEADY_AFTER_S = 60.0  # a process that ran so long starts again at once when it dies

_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def _end_with_parent() -> None:
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


@dataclass
class Running:
    """A process that should be running, and its state."""

    spec: ProcessSpec
    process: subprocess.Popen[str] | None = None
    started_at: float = 0.0
    failures: int = 0
    restart_at: float | None = None
    reader: threading.Thread | None = field(default=None, repr=False)


class Supervisor:
    """`say(name, line)` prints; `root` is the folder the processes run in."""

    def __init__(self, specs: Iterable[ProcessSpec], *, say: Callable[[str, str], None], root: Path) -> None:
        self._all = [Running(spec) for spec in sorted(specs, key=lambda s: s.stage)]
        self._say = say
        self._root = root
        self._stopping = threading.Event()

    def ask_to_stop(self) -> None:
        """May be called from a signal handler."""
        self._stopping.set()

    @property
    def is_stopping(self) -> bool:
        return self._stopping.is_set()

    def start(self, *stages: int) -> None:
        """Starts all of `stages` and waits until each is ready, or until asked to stop. Raises CannotStart when one is not in time."""
        if self.is_stopping:
            return
        chosen = [running for running in self._all if running.spec.stage in stages]
        for running in chosen:
            self._launch(running)
        deadline = time.monotonic() + max((running.spec.start_within_s for running in chosen), default=0.0)
        waiting = list(chosen)
        while waiting and not self.is_stopping:
            for running in list(waiting):
                if running.process is not None and running.process.poll() is not None:
                    raise CannotStart(f"{running.spec.name} ended with status {running.process.returncode}; its lines above say why.")
                if running.spec.ready():
                    waiting.remove(running)
                    self._say(running.spec.name, f"ready after {time.monotonic() - running.started_at:.1f} s")
            if waiting and time.monotonic() > deadline:
                names = ", ".join(running.spec.name for running in waiting)
                raise CannotStart(f"Not ready in time: {names}. The lines above say what they are waiting for.")
            time.sleep(POLL_S)

    def watch(self) -> None:
        """Restarts what dies, with back-off, until asked to stop."""
        while not self._stopping.wait(POLL_S):
            now = time.monotonic()
            for running in self._all:
                if running.restart_at is not None:
                    if now >= running.restart_at:
                        self._launch(running)
                elif running.process is not None and running.process.poll() is not None:
                    self._schedule_restart(running, now)

    def _schedule_restart(self, running: Running, now: float) -> None:
        assert running.process is not None
        running.failures = 0 if now - running.started_at > STEADY_AFTER_S else running.failures + 1
        delay_s = min(FIRST_RESTART_S * 2 ** max(running.failures - 1, 0), LONGEST_RESTART_S) if running.failures else 0.0
        running.restart_at = now + delay_s
        self._say(running.spec.name, f"ended with status {running.process.returncode}; starting it again in {delay_s:.0f} s")

    def _launch(self, running: Running) -> None:
        running.restart_at = None
        running.started_at = time.monotonic()
        running.process = subprocess.Popen(
            running.spec.argv,
            cwd=self._root,
            env={**running.spec.env, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C in the terminal reaches the supervisor alone, which knows the order
            preexec_fn=_end_with_parent,
        )
        assert running.process.stdout is not None
        running.reader = threading.Thread(target=self._relay, args=(running.spec.name, running.process.stdout), daemon=True)
        running.reader.start()

    def _relay(self, name: str, output: IO[str]) -> None:
        for line in output:
            if line.strip():
                self._say(name, line.rstrip())

    def stop(self) -> None:
        """Ends all processes, the last stage first; those of one stage together. Kills what does not end in time."""
        self._stopping.set()
        for _, group in groupby(reversed(self._all), key=lambda running: running.spec.stage):
            alive = [r for r in group if r.process is not None and r.process.poll() is None]
            for running in alive:
                assert running.process is not None
                running.process.terminate()
            for running in alive:
                self._await_end(running)

    def _await_end(self, running: Running) -> None:
        assert running.process is not None
        try:
            running.process.wait(timeout=running.spec.stop_within_s)
        except subprocess.TimeoutExpired:
            self._say(running.spec.name, f"did not end within {running.spec.stop_within_s:.0f} s and is killed")
            os.killpg(running.process.pid, signal.SIGKILL)
            running.process.wait()
        if running.reader is not None:
            running.reader.join(timeout=2)
        self._say(running.spec.name, "stopped")
