"""The Celery application of the workers. It knows the broker, Valkey and the artifact store, and nothing of the store's database.

    WORKER_ROLE=generation celery -A inference.worker worker --pool=threads --concurrency=4 -Q generation.load
    WORKER_ROLE=jobs       celery -A inference.worker worker --pool=threads --concurrency=1 -Q jobs.training,jobs.checks

both with --without-gossip --without-mingle --without-heartbeat, which a worker's user of the broker may not do.

Celery reads the placement queue alone for a generation worker; the queues of the bases that it holds, of requests and of
shards of batches, are read by `inference.intake`, each as far as there is room.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import redis
import redis.exceptions
import structlog
from celery import Celery
from celery.signals import setup_logging, worker_ready, worker_shutdown, worker_shutting_down

from inference import building, jobs, logs
from inference.delivery import Delivery, celery_sender, connect
from inference.engines import EngineHouse, Engines
from inference.intake import Intake
from inference.job_process import LOWEST_PRIORITY
from inference.machine import memory_bytes
from inference.precision import Precision, usual_dtype
from inference.protocol import ALIVE_WITHIN_S, GENERATION_WORKERS, HEARTBEAT_EVERY_S, JOB_WORKERS, JobTask
from inference.shards import Shard, Shards
from inference.vllm_choice import VllmChoice

log = structlog.get_logger(__name__)

MEMORY_SHARE = 0.5  # of the memory there is, when neither WORKER_MEMORY_BYTES nor WORKER_MEMORY_SHARE is given
DRAIN_WITHIN_S = 10.0
SHARDS_END_WITHIN_S = 5.0
ROLES = {"generation": GENERATION_WORKERS, "jobs": JOB_WORKERS}


@dataclass(frozen=True)
class WorkerSettings:
    """What the environment says about this worker."""

    role: str
    name: str
    broker_url: str
    redis_url: str
    artifact_url: str
    cache: Path
    memory_bytes: int
    precision: Precision
    vllm: VllmChoice
    device: str  # cpu, cuda or auto: CUDA when present
    threads: int  # of an engine's computations; 0: torch decides
    idle_s: float  # after which an unused base is unloaded
    cache_bytes: int  # budget of the artifact cache; 0: none
    checkpoint_s: float  # of a job's work between two checkpoints
    job_threads: int  # of a job's computations
    job_nice: int  # how much a job yields to what else the machine does, from 0 to 19

    @classmethod
    def from_environment(cls) -> WorkerSettings:
        """Raises ValueError naming the variable that is wrong."""
        role = os.environ.get("WORKER_ROLE") or "generation"
        if role not in ROLES:
            raise ValueError(f"WORKER_ROLE is {role!r}; it is one of: {', '.join(ROLES)}")
        device = os.environ.get("WORKER_DEVICE") or "auto"
        try:
            precision = Precision.read(os.environ.get("WORKER_DTYPE") or "", usual=usual_dtype(device))
        except ValueError as error:
            raise ValueError(f"WORKER_DTYPE: {error}") from error
        try:
            vllm = VllmChoice.read(os.environ.get("WORKER_VLLM") or "", key=os.environ.get("WORKER_VLLM_KEY") or "")
        except ValueError as error:
            raise ValueError(f"WORKER_VLLM: {error}") from error
        redis_url = os.environ.get("REDIS_URL") or "redis://127.0.0.1:7379/0"
        return cls(
            role=role,
            # A restarted worker must not seem to hold what the one before it had claimed; in a container both have the same process id.
            name=f"{os.environ.get('WORKER_NAME') or f'{role}-{socket.gethostname()}'}.{secrets.token_hex(4)}",
            broker_url=os.environ.get("BROKER_URL") or redis_url,
            redis_url=redis_url,
            artifact_url=os.environ.get("ARTIFACT_URL") or Path("var/artifacts").resolve().as_uri(),
            cache=Path(os.environ.get("WORKER_CACHE_DIR") or "var/cache").resolve(),
            memory_bytes=_number("WORKER_MEMORY_BYTES") or int(memory_bytes() * _share("WORKER_MEMORY_SHARE", MEMORY_SHARE)),
            precision=precision,
            vllm=vllm,
            device=device,
            threads=_number("WORKER_THREADS"),
            idle_s=float(_number("WORKER_IDLE_S") or 900),
            cache_bytes=_number("WORKER_CACHE_BYTES"),
            checkpoint_s=float(_number("WORKER_CHECKPOINT_S") or 20),
            job_threads=_number("WORKER_JOB_THREADS") or 1,
            job_nice=_number("WORKER_JOB_NICE", LOWEST_PRIORITY),
        )


def _number(name: str, default: int = 0) -> int:
    raw = os.environ.get(name) or str(default)
    if not raw.isdigit():
        raise ValueError(f"{name} is {raw!r}; it is a whole number")
    return int(raw)


def _share(name: str, default: float) -> float:
    raw = os.environ.get(name) or str(default)
    try:
        share = float(raw)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise ValueError(f"{name} is {raw!r}; it is a number above 0 and not above 1")
    return share


settings = WorkerSettings.from_environment()

# No Django, whatever the environment says; and whoever only imports this keeps their own application's tasks.
app = Celery("inference", include=["inference.tasks"], fixups=[], set_as_current=False)
app.conf.update(
    broker_url=settings.broker_url,
    result_backend=settings.redis_url,  # only for the store's answers to a job's questions
    task_ignore_result=True,
    result_expires=300,
    task_default_queue="generation.load",
    task_serializer="json",
    result_serializer="json",
    accept_content=["json"],
    task_acks_late=False,  # the store sends again what was lost; a broker's redelivery is never relied on
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=False,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,  # a broker that is away comes back
    # Without emulation nothing is kept for redelivery, in keys that all who consume would share.
    broker_transport_options={"socket_timeout": 30, "socket_connect_timeout": 5, "ack_emulation": False},
    control_exchange="workers",  # apart from the store's: a worker commands workers alone
    control_queue_expires=None,  # what expires is swept by scripts, which a worker may not run
    task_create_missing_queues=True,
)


class Worker:
    """This worker's own things, made when its Celery worker is ready for them."""

    def __init__(self, worker_settings: WorkerSettings, application: Celery) -> None:
        self.settings = worker_settings
        self._app = application
        self.stopping = threading.Event()

    @cached_property
    def valkey(self) -> redis.Redis:
        return connect(self.settings.redis_url)

    @cached_property
    def delivery(self) -> Delivery:
        return Delivery(self.valkey, celery_sender(self._app))

    @cached_property
    def engines(self) -> Engines:
        house = EngineHouse(
            worker=self.settings.name,
            redis_url=self.settings.redis_url,
            artifacts=self.settings.artifact_url,
            cache=self.settings.cache,
            memory_bytes=self.settings.memory_bytes,
            options={"device": self.settings.device},
            precision=self.settings.precision,
            vllm=self.settings.vllm,
            threads=self.settings.threads,
            idle_s=self.settings.idle_s,
            cache_bytes=self.settings.cache_bytes,
        )
        return Engines(house, delivery=self.delivery, valkey=self.valkey, on_change=lambda base, held: self.intake.base_changed(base, held))

    @cached_property
    def intake(self) -> Intake:
        return Intake(
            self._app,
            worker=self.settings.name,
            engines=self.engines,
            delivery=self.delivery,
            shards=self.shards,
            valkey=self.valkey,
        )

    @cached_property
    def shards(self) -> Shards:
        store = jobs.CeleryStore(self._app)
        shard = partial(Shard, engines=self.engines, delivery=self.delivery, valkey=self.valkey)
        place = replace(self.jobs_place, work=shard)
        return Shards(lambda task: jobs.run(task, store, place=place))

    @cached_property
    def spare(self) -> jobs.Spare:
        return jobs.Spare(jobs.Share(threads=self.settings.job_threads, nice=self.settings.job_nice))

    @cached_property
    def jobs_place(self) -> jobs.Place:
        return jobs.Place(
            worker=self.settings.name,
            artifacts=self.settings.artifact_url,
            cache=self.settings.cache,
            progress=jobs.ProgressStream(self.valkey).add,
            memory_bytes=self.settings.memory_bytes,
            segment_s=self.settings.checkpoint_s,
            stopping=self.stopping,
            work=self.spare.take,
        )

    def run_job(self, task: JobTask) -> None:
        """Runs one attempt of a job to its end, and has the process of the next one ready."""
        jobs.run(task, jobs.CeleryStore(self._app), place=self.jobs_place)
        if not self.stopping.is_set():
            self.spare.prepare()

    def begin(self) -> None:
        """Starts the heartbeat; called once, when the Celery worker takes tasks."""
        if self.settings.role == "generation":
            self._build_native()
            self.intake  # noqa: B018 made before the first request, so that two do not make it at once
        else:
            self.spare.prepare()
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()
        log.info(
            "worker ready",
            worker=self.settings.name,
            role=self.settings.role,
            memory_mb=self.settings.memory_bytes // 2**20,
            dtype=self.settings.precision.usual,
            single_dtypes=dict(self.settings.precision.of_single),
            vllm=dict(self.settings.vllm.servers),
            device=self.settings.device,
        )

    def _build_native(self) -> None:
        """Before the first heartbeat, so that no request is sent to a worker that compiles."""
        try:
            building.built()
        except building.NotBuilt as error:
            log.warning("engines run without the C++ path", reason=str(error))

    def stop_taking(self) -> None:
        """The first thing of a shutdown: be found no longer, and have a job end after its segment."""
        self.stopping.set()
        if self.settings.role == "generation":
            self.intake.stop()
        try:
            self.valkey.zrem(ROLES[self.settings.role], self.settings.name)
        except redis.exceptions.RedisError as error:
            log.warning("heartbeat left to expire", error=repr(error))

    def end(self) -> None:
        """The last thing: let the engines finish and deliver what they said."""
        if self.settings.role == "generation":
            if not self.shards.wait_for_end(within_s=SHARDS_END_WITHIN_S):
                log.warning("shards left to be found lost")
            self.engines.drain(within_s=DRAIN_WITHIN_S)
            if not self.delivery.flush(within_s=3.0):
                log.error("last events not delivered before the end")

    def _beat(self) -> None:
        while not self.stopping.wait(HEARTBEAT_EVERY_S):
            try:
                now = time.time()
                workers = ROLES[self.settings.role]
                self.valkey.zadd(workers, {self.settings.name: now})
                self.valkey.zremrangebyscore(workers, 0, now - 10 * ALIVE_WITHIN_S)
            except redis.exceptions.RedisError as error:
                log.warning("heartbeat not written", error=repr(error))
            if self.settings.role == "generation":
                self.intake.leave_queues()


worker = Worker(settings, app)


@setup_logging.connect
def _use_own_logging(**_: Any) -> None:
    logs.configure()


@worker_ready.connect
def _begin(**_: Any) -> None:
    worker.begin()


@worker_shutting_down.connect
def _stop_taking(**_: Any) -> None:
    worker.stop_taking()


@worker_shutdown.connect
def _end(**_: Any) -> None:
    worker.end()
