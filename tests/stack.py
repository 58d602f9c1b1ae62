"""The one real stack of a test run: broker, web server, workers and a real model, on a file database.

Tests that use it make people and listings of their own (a tenant per test) and leave them behind; nothing is rolled
back, since the processes of the stack must see it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connection

PRICE_MICRO_PER_STEP = 10
READY_WITHIN_S = 300.0  # the first time, the model is downloaded and converted


@dataclass
class Stack:
    """A running store: `url` of its web server; `lines` are the newest it said."""

    url: str
    valkey_port: int  # of its own broker
    process: subprocess.Popen[str]
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=4000))

    def log(self) -> str:
        return "\n".join(self.lines)

    def pids(self, *words: str) -> list[int]:
        """Process ids below the supervisor whose command line holds all `words`."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and _descends(int(entry.name), self.process.pid):
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    if all(word in command for word in words):
                        found.append(int(entry.name))
        return sorted(found)


def _descends(pid: int, ancestor: int) -> bool:
    while pid > 1:
        if pid == ancestor:
            return True
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return False


def wait_until(condition: Callable[[], Any], *, within_s: float = 60.0, what: str = "the condition") -> Any:
    """The first true value of `condition`, looked at every 50 ms. Fails when there is none in time."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not come true within {within_s:.0f} s"
        time.sleep(0.05)
    return value


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _database_url() -> str:
    """Of the test database, which the run has made already."""
    database = connection.settings_dict
    if connection.vendor == "postgresql":
        return f"postgres://{database['USER']}@{database['HOST']}:{database['PORT']}/{database['NAME']}"
    return f"sqlite:///{database['NAME']}"


@contextmanager
def running_stack() -> Iterator[Stack]:
    """`manage.py up --prepare` on the database of this test process, with the broker and the users it makes for itself."""
    port, valkey_port = free_port(), free_port()
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "store.settings",
        "DATABASE_URL": _database_url(),
        "VALKEY_PORT": str(valkey_port),
        "PORT": str(port),
        "SITE_URL": f"http://127.0.0.1:{port}",
        "EMAIL_BACKEND": "django.core.mail.backends.filebased.EmailBackend",
        "WORKER_CACHE_DIR": str(settings.BASE_DIR / "var" / "cache"),  # kept between runs: the converted model
        "WORKER_DTYPE": "float32",  # the same text on every machine
        "WORKER_JOB_NICE": "0",  # on a busy machine a job that gives way to everything would not end in time
        "WORKER_CHECKPOINT_S": "1",  # so that even a short run has something to resume from
        "FINETUNE_PRICE_MICRO_PER_STEP": str(PRICE_MICRO_PER_STEP),  # of what is held; tests start most of them where nothing is
        "VISITOR_TRIES_PER_DAY": "100000",
        "DEMO_FINETUNE": "false",  # ten minutes of work beside every story
        "DEMO_GPTS": "3",  # with their base the least that the arena needs: the checks ask each of them with the real model
        "LOG_LEVEL": "INFO",
    }
    process = subprocess.Popen(
        [sys.executable, "manage.py", "up", "--prepare", "--port", str(port)],
        cwd=settings.BASE_DIR,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    stack = Stack(url=f"http://127.0.0.1:{port}", valkey_port=valkey_port, process=process)
    threading.Thread(target=_read, args=(stack,), daemon=True).start()
    try:
        _await_ready(stack)
        yield stack
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=90)
        except subprocess.TimeoutExpired:
            process.kill()


def _read(stack: Stack) -> None:
    assert stack.process.stdout is not None
    for line in stack.process.stdout:
        stack.lines.append(line.rstrip())


def _await_ready(stack: Stack) -> None:
    def ready() -> bool:
        assert stack.process.poll() is None, f"the stack ended:\n{stack.log()}"
        return any("The store is open at" in line for line in list(stack.lines))

    try:
        wait_until(ready, within_s=READY_WITHIN_S, what="the stack's start")
    except AssertionError as error:
        raise AssertionError(f"{error}\n{stack.log()}") from error
