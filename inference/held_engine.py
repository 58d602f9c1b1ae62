"""One engine process as its worker holds it: what it was given, what waits for it, and the pipe to it."""

from __future__ import annotations

import json
import math
import os
import queue
import secrets
import subprocess
import sys
import threading
import time
from enum import Enum
from pathlib import Path
from typing import IO, Any

import structlog

from inference.engine_process import Order
from inference.protocol import GenerationRequest, Priority

log = structlog.get_logger(__name__)

ENDS_WITHIN_S = 5.0  # an engine whose input was closed


class State(Enum):
    LOADING = "loading"
    READY = "ready"
    ENDING = "ending"


class HeldEngine:
    """One engine process, or its becoming. Fields are guarded by the lock of `Engines`."""

    def __init__(self, base: str, *, worker: str) -> None:
        self.base = base
        self.name = f"{worker}.{base[:8]}.{secrets.token_hex(3)}"
        self.state = State.LOADING
        self.waiting: dict[str, GenerationRequest] = {}  # in the order they came
        self.given: dict[str, GenerationRequest] = {}
        self.room = True  # as the engine itself says
        self.memory_bytes = 0  # that it may take; 0: not known yet
        self.killed_for = ""  # what people read then
        self.stats: dict[str, Any] = {}
        self.used_at = self.heard_at = self.began_at = time.monotonic()
        self.ended_at = math.inf  # when it was told to end
        self.process: subprocess.Popen[str] | None = None
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    @property
    def idle(self) -> bool:
        return self.state is State.READY and not self.given and not self.waiting

    @property
    def serves_people(self) -> bool:
        """Whether somebody waits for what it has to do."""
        return any(request.priority != Priority.BATCH for requests in (self.waiting, self.given) for request in requests.values())

    def start(self, order: Order, *, threads: int) -> IO[str]:
        """Starts the process; returns its output.

        Its threads sleep while they wait for each other. Spinning, they stop a busy machine: on 2 cores under a load of 8, a
        step of SmolLM2-135M took 1.9 s instead of 0.2 s.
        """
        environment = {"OMP_WAIT_POLICY": "passive"} | os.environ | {"TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
        if threads:
            environment["OMP_NUM_THREADS"] = str(threads)
        process = subprocess.Popen(
            [sys.executable, "-m", "inference.engine_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            cwd=Path(__file__).resolve().parent.parent,
            start_new_session=True,  # Ctrl-C ends the worker, which ends its engines when they have finished
            text=True,
            encoding="utf-8",
        )
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        self.tell(**order.to_json())
        threading.Thread(target=self._write, args=(process.stdin,), name=f"orders-{self.base[:8]}", daemon=True).start()
        return process.stdout

    def tell(self, **order: Any) -> None:
        """Sends a line, without waiting. A dead process needs none: its end fails what it held."""
        self._lines.put(json.dumps(order, ensure_ascii=False) + "\n")

    def close(self) -> None:
        """Closes the process's input behind what it was told, on which it ends."""
        self.state = State.ENDING
        self.ended_at = min(self.ended_at, time.monotonic())
        self._lines.put(None)

    @property
    def own_bytes(self) -> int:
        """Memory that is the process's alone, without the pages of files; 0 where the system does not say."""
        try:
            _, resident, shared, *_ = Path(f"/proc/{self.process.pid}/statm").read_text().split() if self.process else ("0", "0", "0")
        except OSError:
            return 0
        return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")

    def _write(self, orders: IO[str]) -> None:
        """In a thread of its own: an engine that has stopped reading holds up nobody."""
        try:
            with orders:
                while (line := self._lines.get()) is not None:
                    orders.write(line)
                    orders.flush()
        except BrokenPipeError:
            log.info("engine takes no more orders", engine=self.name)

    def kill(self, why: str = "") -> None:
        if self.process is not None:
            self.killed_for = self.killed_for or why
            self.process.kill()

    def wait(self) -> int | None:
        """The exit status, after killing what does not end by itself; None when there never was a process."""
        if self.process is None:
            return None
        try:
            return self.process.wait(timeout=ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
