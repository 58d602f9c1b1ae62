"""What a worker says about a job, for the tests: it claims, records segments and ends as the protocol has it."""

from __future__ import annotations

import base64
import json
from typing import Any

import redis
from django.conf import settings

from inference import protocol
from inference.protocol import Claim, Outcome, Segment, Verdict
from store.accounts.models import Publisher
from store.jobs import claims, dispatch
from store.jobs.models import Job
from tests.making import make_artifact


def make_job(publisher: Publisher | None = None, kind: str = Job.Kind.FINETUNE, **fields: Any) -> Job:
    return dispatch.create(kind, params={"settings": {}, "name": "data.jsonl", "file": "f" * 64}, publisher=publisher, **fields)


def claim_of(job: Job, claim: str = "c1", worker: str = "here") -> Claim:
    return Claim(job=job.public_id, attempt=job.attempt, claim=claim, worker=worker)


def claimed(publisher: Publisher | None = None, **fields: Any) -> Job:
    """A job that a worker has claimed as c1."""
    job = make_job(publisher, **fields)
    assert claims.claim(claim_of(job)) is Verdict.GO_ON
    return fresh(job)


def segment_of(job: Job, number: int, *, claim: str = "c1", done: float = 0.5) -> Segment:
    events = [{"step": number + 1, "loss": 2.0 - number / 10, "learning_rate": 1e-4, "grad_norm": 1.0, "tokens_per_s": 50.0}]
    return Segment(
        job=job.public_id, attempt=job.attempt, claim=claim, number=number, checkpoint=f"{number:064x}", events=events, done=done
    )


def looked_at(*losses: float | None, answer: str = "") -> list[dict[str, Any]]:
    """Events of a run whose base and checkpoints, ten steps apart, answered one prompt."""
    began = {"step": 0, "prompts": ["Where?"], "samples": [answer or "At the base."]}
    told = {"loss": 2.0, "learning_rate": 1e-4, "grad_norm": 1.0, "tokens_per_s": 50.0}
    steps = [
        {"step": 10 * n, **told, "samples": [answer or f"At {10 * n}."], "snapshot": make_artifact().digest}
        | ({} if loss is None else {"validation_loss": loss})
        for n, loss in enumerate(losses, 1)
    ]
    return [began, *steps]


def outcome_of(job: Job, *, claim: str = "c1", **fields: Any) -> Outcome:
    return Outcome(job=job.public_id, attempt=job.attempt, claim=claim, **fields)


def fresh(job: Job) -> Job:
    return Job.objects.get(pk=job.pk)


def queued(queue: str = protocol.TRAINING_QUEUE) -> list[dict[str, Any]]:
    """The messages that wait in a queue of the broker, newest first, by the argument of their task."""
    client = redis.Redis.from_url(settings.REDIS_URL)
    found = []
    for raw in client.lrange(queue, 0, -1):
        body = json.loads(base64.b64decode(json.loads(raw)["body"]))
        found.append(body[0][0])
    return found


def lose_the_broker() -> None:
    redis.Redis.from_url(settings.REDIS_URL).flushdb()
