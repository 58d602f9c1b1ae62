"""What an installation on one machine is made of: each process, how it is started, what it is told, and when it is ready."""

from __future__ import annotations

import http.client
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import redis
from django.conf import settings

from inference.protocol import ALIVE_WITHIN_S, CHECKS_QUEUE, GENERATION_WORKERS, JOB_WORKERS, LOAD_QUEUE, TRAINING_QUEUE
from store import environment
from store.supervision import broker
from store.supervision.errors import CannotStart


@dataclass(frozen=True)
class ProcessSpec:
    """One process of the installation. `stage` orders the start (ascending); the stop goes the other way round.

    `env` is all it knows of the environment.
    """

    name: str
    argv: tuple[str, ...]
    stage: int
    ready: Callable[[], bool]
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)
    start_within_s: float = 60.0
    stop_within_s: float = 20.0


@dataclass(frozen=True)
class Site:
    """Where the web server listens, and the address by which people reach it."""

    host: str
    port: int
    url: str


@dataclass(frozen=True)
class Worker:
    """One of the workers of `inference.worker`."""

    name: str  # in what the supervisor says
    task: str  # begins the name by which the store knows it
    role: str
    queue: str
    concurrency: int
    beats_in: str
    memory: int  # its part of what all workers may use together, by weight
    stop_within_s: float = 20.0
    job_nice: int | None = None  # how much its jobs yield to everything else, where the operator does not say


BROKER, SERVICES, WORKERS = 0, 1, 2
# Checks have a worker of their own: behind an hour of training nothing could be reviewed. They are short and people wait for them, so
# they get a quarter of what an engine gets where both want all of it (niceness 5); training gets a sixtieth (19), and what is left.
WORKER_SPECS = (
    Worker("generate", "generation", "generation", LOAD_QUEUE, concurrency=4, beats_in=GENERATION_WORKERS, memory=4),
    Worker("training", "training", "jobs", TRAINING_QUEUE, concurrency=1, beats_in=JOB_WORKERS, memory=2, stop_within_s=40.0, job_nice=19),
    Worker("checks", "checks", "jobs", CHECKS_QUEUE, concurrency=1, beats_in=JOB_WORKERS, memory=1, stop_within_s=40.0, job_nice=5),
)
WORKER_STARTS_WITHIN_S = 300.0  # the first one on a machine may have to build something before it takes work
MEMORY_SHARE = 0.875  # of the memory there is, for all workers together; the rest is for the store's own processes
_WEIGHTS = sum(worker.memory for worker in WORKER_SPECS)

_PLACE = f"{socket.gethostname()}-{os.getpid()}"  # two machines, or two containers, may well have equal process ids
_QUIET = {"PYTHONWARNINGS": "ignore:You're running the worker"}  # as root, which is an operator's choice, celery warns at every start


def installation(site: Site) -> list[ProcessSpec]:
    """Everything `manage.py up` runs. With REDIS_URL set, the operator's own broker takes the place of the embedded one.

    Raises CannotStart.
    """
    embedded = [_valkey()] if settings.EMBEDDED_VALKEY else []
    return [*embedded, _web(site), _store_worker(site), _beat(site), *(_worker(worker) for worker in WORKER_SPECS)]


def _valkey() -> ProcessSpec:
    argv = broker.embedded_valkey(settings.VAR_DIR / "valkey")
    return ProcessSpec("broker", argv, BROKER, broker.answers, environment.of_machine())


# ---------------------------------------------------------------- the store's own processes


def _store_env(site: Site) -> dict[str, str]:
    return {**os.environ, "HOST": site.host, "PORT": str(site.port), "SITE_URL": site.url, **_QUIET}


def web_server(application: str, host: str, port: int) -> tuple[str, ...]:
    """The command that serves an ASGI application as the store is served."""
    return (
        *_python("-m", "uvicorn", application, "--host", host, "--port", str(port)),
        *("--no-access-log", "--log-level", "warning", "--timeout-graceful-shutdown", "5", "--lifespan", "off"),
    )


def _web(site: Site) -> ProcessSpec:
    argv = web_server("store.asgi:application", site.host, site.port)
    reached = "127.0.0.1" if site.host in ("0.0.0.0", "") else site.host
    return ProcessSpec("web", argv, SERVICES, lambda: _serves(reached, site.port), _store_env(site))


def _store_worker(site: Site) -> ProcessSpec:
    from store.celery import app

    name = f"store@{_PLACE}"
    argv = _celery("store.celery", "worker", "--pool=threads", "--concurrency=4", "-Q", "store,store.events", "-n", name)

    def ready() -> bool:
        return bool(app.control.ping(destination=[name], timeout=0.3))

    return ProcessSpec("store", argv, SERVICES, ready, _store_env(site))


def _beat(site: Site) -> ProcessSpec:
    pid_file = settings.VAR_DIR / "beat.pid"
    pid_file.unlink(missing_ok=True)  # left by a beat that was killed
    argv = _celery("store.celery", "beat", "--pidfile", str(pid_file))
    return ProcessSpec("beat", argv, SERVICES, pid_file.exists, _store_env(site))


# ---------------------------------------------------------------- the workers


def _worker(worker: Worker) -> ProcessSpec:
    options = ("--pool=threads", f"--concurrency={worker.concurrency}", "-Q", worker.queue, "-n", f"{worker.task}@{_PLACE}")
    name = f"{worker.task}-{_PLACE}"
    told = {
        **environment.of_workers(),
        "WORKER_ROLE": worker.role,
        "WORKER_NAME": name,
        "WORKER_CACHE_DIR": os.environ.get("WORKER_CACHE_DIR") or str(settings.VAR_DIR / "cache"),
        "BROKER_URL": settings.WORKER_BROKER_URL,
        "REDIS_URL": settings.WORKER_REDIS_URL,
        "ARTIFACT_URL": settings.ARTIFACT_URL,
        **_memory_of(worker),
        **_niceness_of(worker),
        **_QUIET,
    }
    argv = _celery("inference.worker", "worker", *options)
    ready = _beating(worker.beats_in, name)
    return ProcessSpec(worker.name, argv, WORKERS, ready, told, start_within_s=WORKER_STARTS_WITHIN_S, stop_within_s=worker.stop_within_s)


def _niceness_of(worker: Worker) -> dict[str, str]:
    said = os.environ.get("WORKER_JOB_NICE") or ("" if worker.job_nice is None else str(worker.job_nice))
    return {"WORKER_JOB_NICE": said} if said else {}


def _memory_of(worker: Worker) -> dict[str, str]:
    """Its part of WORKER_MEMORY_BYTES, or of a share of what the machine has, which only the worker itself knows."""
    part = worker.memory / _WEIGHTS
    if bytes_of_all := _amount("WORKER_MEMORY_BYTES", int):
        return {"WORKER_MEMORY_BYTES": str(int(bytes_of_all * part))}
    return {"WORKER_MEMORY_SHARE": str((_amount("WORKER_MEMORY_SHARE", float) or MEMORY_SHARE) * part)}


def _amount(variable: str, kind: Callable[[str], Any]) -> Any:
    raw = os.environ.get(variable) or "0"
    try:
        return kind(raw)
    except ValueError as error:
        raise CannotStart(f"{variable} is {raw!r}, which is no number. Mend or unset it.") from error


def _python(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, *arguments)


def _celery(application: str, command: str, *options: str) -> tuple[str, ...]:
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat") if command == "worker" else ()
    return _python("-m", "celery", "-A", application, "--quiet", command, "--loglevel", "INFO", *quiet, *options)


# ---------------------------------------------------------------- when they are ready


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


def _beating(workers: str, name: str) -> Callable[[], bool]:
    """Whether the worker of this name has given a sign of life since now; each start adds something of its own to the name."""
    started = time.time()

    def ready() -> bool:
        with redis.Redis.from_url(settings.REDIS_URL, decode_responses=True, socket_timeout=2) as client:
            alive: Any = client.zrangebyscore(workers, max(started, time.time() - ALIVE_WITHIN_S), "+inf")
            return any(member.startswith(f"{name}.") for member in alive)

    return ready
