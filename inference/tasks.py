"""The two tasks of the workers: answer a request, run a job. Both come by name, with one JSON message."""

from __future__ import annotations

from typing import Any

import structlog
from structlog.contextvars import bound_contextvars

from inference.protocol import GENERATE, RUN_JOB, JobTask
from inference.worker import app, worker

log = structlog.get_logger(__name__)


@app.task(name=GENERATE)
def generate(message: dict[str, Any]) -> None:
    """Has a request of the placement queue answered; the queues of bases are read by `inference.intake` itself."""
    worker.intake.take(message)


@app.task(name=RUN_JOB)
def run_job(message: dict[str, Any]) -> None:
    """Runs one attempt of a job to its end; on a worker that generates, begins a shard of a base that no worker held."""
    if worker.settings.role == "generation":
        worker.shards.take(message)
        return
    task = JobTask.from_json(message)
    with bound_contextvars(request_id=task.trace, job=task.job):
        log.info("job begins", kind=task.kind, attempt=task.attempt, segment=task.segment)
        worker.run_job(task)
