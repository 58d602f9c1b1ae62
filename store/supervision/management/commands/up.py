"""`manage.py up`: the whole store on this machine, supervised."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from argparse import ArgumentParser
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import connections
from filelock import FileLock, Timeout
from kombu.utils.url import maybe_sanitize_url

from store.loopback import is_loopback
from store.pages.demo import finetune, people
from store.supervision import broker
from store.supervision.errors import CannotStart
from store.supervision.preparation import prepare
from store.supervision.processes import BROKER, SERVICES, WORKERS, Site, installation
from store.supervision.supervisor import Supervisor

COLOURS = {"broker": 35, "web": 36, "store": 34, "beat": 90, "generate": 32, "training": 33, "checks": 33, "up": 1}


class Command(BaseCommand):
    help = (
        "Runs the broker, the web server, the store's worker and clock, and the workers for generation, training and checks, "
        "and keeps them running."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default=settings.HOST, help="address to listen on (default: %(default)s)")
        parser.add_argument("--port", type=int, default=settings.PORT, help="port to listen on (default: %(default)s)")
        parser.add_argument(
            "--prepare", action="store_true", help="first migrate, collect static files, import the model and seed the demo"
        )

    def handle(self, *, host: str, port: int, prepare: bool, **_: Any) -> None:
        lock = FileLock(settings.VAR_DIR / "up.lock")  # the kernel lets go of it however this process ends
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise CommandError(
                f"The store runs already on {settings.VAR_DIR}. Stop it first, or give this one a folder of its own: VAR_DIR=… make run"
            ) from error
        try:
            self._open(_site(host, port), prepare=prepare)
        finally:
            lock.release()

    def _open(self, site: Site, *, prepare: bool) -> None:
        began = time.monotonic()
        try:
            _require_free(site.host, site.port, "PORT")
            if settings.EMBEDDED_VALKEY:
                _require_free("127.0.0.1", settings.VALKEY_PORT, "VALKEY_PORT")
            elif not broker.answers():
                where = maybe_sanitize_url(settings.REDIS_URL)
                raise CannotStart(f"No Valkey or Redis answers at {where}. Start it, or unset REDIS_URL to use the embedded one.")
            supervisor = Supervisor(installation(site), say=self._say, root=settings.BASE_DIR)
        except CannotStart as error:
            raise CommandError(str(error)) from error
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: self._stop(supervisor))
        try:
            with contextlib.suppress(KeyboardInterrupt):
                self._run(supervisor, site, began, prepare_first=prepare)
        except CannotStart as error:
            raise CommandError(str(error)) from error
        finally:
            self._say("up", "stopping: workers first, the broker last")
            supervisor.stop()

    _preparing = False

    def _stop(self, supervisor: Supervisor) -> None:
        """What a signal does. Preparation may take minutes and looks at nothing in between, so it is broken off, once."""
        supervisor.ask_to_stop()
        if self._preparing:
            self._preparing = False
            raise KeyboardInterrupt

    def _run(self, supervisor: Supervisor, site: Site, began: float, *, prepare_first: bool) -> None:
        supervisor.start(BROKER)
        new_people = prepare_first and self._prepare(supervisor)
        connections.close_all()
        supervisor.start(SERVICES, WORKERS)
        if not supervisor.is_stopping:
            self._say("up", f"The store is open at {site.url}  (ready after {time.monotonic() - began:.1f} s; Ctrl-C stops it)")
            if prepare_first and settings.DEMO:
                self._say_logins(site, new=new_people)
                self._say_finetune(site)
                connections.close_all()
        supervisor.watch()

    def _prepare(self, supervisor: Supervisor) -> bool:
        if supervisor.is_stopping:
            return False
        self._preparing = True
        try:
            return prepare(lambda line: self._say("up", line))
        finally:
            self._preparing = False

    def _say_logins(self, site: Site, *, new: bool) -> None:
        """On a store that others reach, only once: what is said at a start stays in logs."""
        if not new and not _is_for_this_machine(site):
            self._say("up", "  the demo's logins are printed by: manage.py demo_logins")
            return
        for login in people.valid_logins():
            self._say("up", f"  {login.role:<10} {login.username:<10} {login.password}")

    def _say_finetune(self, site: Site) -> None:
        if (job := finetune.the_job()) is not None:
            self._say("up", f"  the demo's fine-tune: {site.url}/studio/jobs/{job.public_id}/  (what may be done to it: as publisher)")

    _printing = threading.Lock()

    def _say(self, name: str, line: str) -> None:
        head = f"{name:>8} │"
        if self.stdout.isatty():
            head = f"\033[{COLOURS.get(name, 0)}m{head}\033[0m"
        with self._printing, contextlib.suppress(BrokenPipeError):
            sys.stdout.write(f"{head} {line}\n")
            sys.stdout.flush()


def _site(host: str, port: int) -> Site:
    return Site(host, port, settings.SITE_URL if os.environ.get("SITE_URL") else f"http://127.0.0.1:{port}")


def _is_for_this_machine(site: Site) -> bool:
    return not settings.HTTPS and is_loopback(site.host) and is_loopback(urlsplit(site.url).hostname or "")


def _require_free(host: str, port: int, variable: str) -> None:
    """Raises CannotStart when something listens there already."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise CannotStart(
                f"Port {port} on {host} cannot be used ({error.strerror}). Perhaps the store runs already; "
                f"stop what uses the port, or choose another one: {variable}={port + 1} make run"
            ) from error
