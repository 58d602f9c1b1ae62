"""The two tasks of the workers: answer a request, run a job. Both come by name, with one JSON message."""

from __future__ import annotations

import time
from typing import Any

import structlog
from structlog.contextvars import bound_contextvars

from inference import jobs
from inference.delivery import ended
from inference.engines import is_given_up
from inference.protocol import GENERATE, RUN_JOB, FinishReason, GenerationRequest, JobTask, claim_key
from inference.worker import app, worker

log = structlog.get_logger(__name__)

CLAIM_KEPT_S = 3600


@app.task(name=GENERATE)
def generate(message: dict[str, Any]) -> None:
    """Hands a request to its engine and returns; the engine answers it. A second delivery of an attempt does nothing."""
    request = GenerationRequest.from_json(message)
    with bound_contextvars(request_id=request.trace, generation=request.id):
        if not worker.valkey.set(claim_key(request.id, request.attempt), worker.settings.name, nx=True, ex=CLAIM_KEPT_S):
            log.info("delivered twice", attempt=request.attempt)
            return
        if time.time() > request.deadline:
            worker.delivery.answer(ended(request, FinishReason.DEADLINE))
            return
        if is_given_up(request, worker.valkey):
            worker.delivery.answer(ended(request, FinishReason.CANCELLED))
            return
        log.info("generation begins", base=request.base, version=request.version, attempt=request.attempt)
        worker.engines.submit(request)


@app.task(name=RUN_JOB)
def run_job(message: dict[str, Any]) -> None:
    """Runs one attempt of a job to its end."""
    task = JobTask.from_json(message)
    with bound_contextvars(request_id=task.trace, job=task.job):
        log.info("job begins", kind=task.kind, attempt=task.attempt, segment=task.segment)
        jobs.run(task, jobs.CeleryStore(app), place=worker.jobs_place)
