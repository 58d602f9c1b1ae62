"""A catalogue served as `manage.py up` serves it: the same server, static files and Valkey, without workers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks import catalogue

ROOT = Path(__file__).parent.parent
_BEST = """
import django; django.setup()
from store.catalog.models import SearchEntry
best = SearchEntry.objects.filter(is_listed=True).order_by("-rank").values_list("listing__publisher__slug", "listing__slug").first()
print("/".join(best))
"""
_BROKER = """
import os, django; django.setup()
from django.conf import settings
from store.supervision.broker import embedded_valkey
command = [*embedded_valkey(settings.VAR_DIR / "valkey"), "--appendonly", "no"]
os.execv(command[0], command)
"""


@contextmanager
def served_catalogue(size: int) -> Iterator[tuple[str, str]]:
    """The address of a store with so many listings, which is made the first time, and the name of the best of them."""
    database = catalogue.url_of("", size)
    catalogue.fill(size, database)
    port, valkey_port = free_port(), free_port()
    environment = environment_of(size, database, port) | {"VALKEY_PORT": str(valkey_port)}
    for command in (("migrate", "-v0"), ("collectstatic", "--noinput", "-v0")):
        subprocess.run([sys.executable, "manage.py", *command], cwd=ROOT, env=environment, check=True)
    best = subprocess.run([sys.executable, "-c", _BEST], cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    with ExitStack() as running:
        running.enter_context(process([sys.executable, "-c", _BROKER], environment))
        running.enter_context(serving("store.asgi:application", port, environment))
        yield f"http://127.0.0.1:{port}", best.stdout.strip()


def environment_of(size: int, database: str, port: int) -> dict[str, str]:
    told = {"DATABASE_URL": database, "VAR_DIR": str(catalogue.FOLDER / str(size)), "DEMO": "0", "SITE_URL": f"http://127.0.0.1:{port}"}
    told |= {"DJANGO_SETTINGS_MODULE": "store.settings", "PYTHONPATH": str(ROOT), "LOG_LEVEL": "ERROR", "PYTHONWARNINGS": "ignore"}
    return {**os.environ, **told}


@contextmanager
def serving(application: str, port: int, environment: Mapping[str, str]) -> Iterator[None]:
    """An ASGI application under the store's own web server, once it answers."""
    from store.supervision.processes import web_server

    with process(list(web_server(application, "127.0.0.1", port)), environment):
        _wait_for(port)
        yield


@contextmanager
def process(command: list[str], environment: Mapping[str, str]) -> Iterator[None]:
    started = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        started.terminate()
        started.wait(timeout=20)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
