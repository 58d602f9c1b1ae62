"""Order of start and stop, restart with back-off, and plain words when something is in the way; with real processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from filelock import FileLock

from store.supervision.errors import CannotStart
from store.supervision.processes import ProcessSpec, _serves
from store.supervision.supervisor import Supervisor

SLEEPER = "import pathlib, sys, time; pathlib.Path(sys.argv[1]).touch(); print('here', flush=True); time.sleep(600)"


def sleeper(folder: Path, name: str, *, stage: int) -> ProcessSpec:
    mark = folder / name
    return ProcessSpec(name, (sys.executable, "-c", SLEEPER, str(mark)), stage, mark.exists, start_within_s=20)


def wait_until(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        threading.Event().wait(0.02)


def test_stages_start_in_order_and_stop_the_other_way_round(tmp_path: Path) -> None:
    said: list[tuple[str, str]] = []
    specs = [sleeper(tmp_path, "worker", stage=2), sleeper(tmp_path, "broker", stage=0), sleeper(tmp_path, "web", stage=1)]
    supervisor = Supervisor(specs, say=lambda name, line: said.append((name, line)), root=tmp_path)

    supervisor.start(0)
    started_first = [name for name, line in said if line.startswith("ready")]
    supervisor.start(1, 2)
    supervisor.stop()

    assert started_first == ["broker"]
    assert [name for name, line in said if line == "stopped"] == ["worker", "web", "broker"]
    assert ("worker", "here") in said


def test_what_dies_is_started_again(tmp_path: Path) -> None:
    said: list[str] = []
    supervisor = Supervisor([sleeper(tmp_path, "web", stage=1)], say=lambda _, line: said.append(line), root=tmp_path)
    supervisor.start(1)
    (running,) = supervisor._all
    assert running.process is not None
    first = running.process.pid

    def kill_then_stop() -> None:
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: running.process is not None and running.process.pid != first)
        supervisor.ask_to_stop()

    killer = threading.Thread(target=kill_then_stop)
    killer.start()
    supervisor.watch()
    killer.join()
    supervisor.stop()

    assert "ended with status -9; starting it again in 1 s" in said


def test_a_process_that_ends_at_once_is_named(tmp_path: Path) -> None:
    broken = ProcessSpec("web", (sys.executable, "-c", "import sys; sys.exit(7)"), 1, lambda: False)
    supervisor = Supervisor([broken], say=lambda *_: None, root=tmp_path)

    with pytest.raises(CannotStart, match="web ended with status 7"):
        supervisor.start(1)
    supervisor.stop()


def test_processes_end_with_a_killed_supervisor(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    child = f"import os, pathlib, time; pathlib.Path({str(mark)!r}).write_text(str(os.getpid())); time.sleep(600)"
    program = (
        "import pathlib, sys, time\n"
        "from store.supervision.processes import ProcessSpec\n"
        "from store.supervision.supervisor import Supervisor\n"
        f"mark = pathlib.Path({str(mark)!r})\n"
        f"spec = ProcessSpec('web', (sys.executable, '-c', {child!r}), 1, lambda: mark.exists() and bool(mark.read_text()))\n"
        "Supervisor([spec], say=lambda *_: None, root=pathlib.Path('.')).start(1)\n"
        "time.sleep(600)\n"
    )
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "store.settings"}
    code = "import django; django.setup()\n" + program
    supervisor = subprocess.Popen([sys.executable, "-c", code], cwd=settings.BASE_DIR, env=environment)
    wait_until(lambda: mark.exists() and bool(mark.read_text()))
    pid = int(mark.read_text())

    supervisor.kill()
    supervisor.wait()

    wait_until(lambda: not Path(f"/proc/{pid}").exists() or "zombie" in Path(f"/proc/{pid}/status").read_text())


def test_a_second_start_on_the_same_folder_is_refused() -> None:
    with FileLock(settings.VAR_DIR / "up.lock"), pytest.raises(CommandError, match="The store runs already on"):
        call_command("up", port=1, host="127.0.0.1")


@pytest.mark.parametrize("status", [200, 301, 400])
def test_a_web_server_that_redirects_or_refuses_the_probe_is_ready(status: int) -> None:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        ready = _serves("127.0.0.1", server.server_port)
        server.shutdown()

    assert ready is True
    assert _serves("127.0.0.1", server.server_port) is False


def test_a_taken_port_is_said_with_the_way_out() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(CommandError, match=rf"Port {port} on 127.0.0.1 cannot be used.*PORT={port + 1} make run"):
            call_command("up", port=port, host="127.0.0.1")
