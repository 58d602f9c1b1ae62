"""Processes die at any moment of a job, and it ends once, with the very bits of a run that nothing happened to.

`make soak` kills many more of them, in an order that SOAK_SEED draws.
"""

from __future__ import annotations

import io
import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest
import redis
from django.conf import settings

from store.accounts.models import User
from store.catalog import publishing
from store.catalog.models import Version
from store.jobs import files, finetunes
from store.jobs.models import Job
from store.notifications.models import Notification
from tests import making
from tests.inference.job_bench import chat_line
from tests.inference.tiny import tiny_base
from tests.stack import Stack, wait_until

pytestmark = [pytest.mark.soak]
KILLS = int(os.environ.get("SOAK_KILLS", "0"))
SEED = int(os.environ.get("SOAK_SEED", "1"))
SHORT = ("the broker's data", "the job's process")  # the stories of publishers and workers kill others
VICTIMS = {
    "the job's process": ("inference.job_process",),
    "the training worker": ("inference.worker", "jobs.training"),
    "the store's worker": ("store.celery", "store.events"),
    "beat": ("store.celery", "beat"),
    "the web process": ("uvicorn", "store.asgi"),
    "the broker": ("valkey-server",),
}
# Steps of some milliseconds, and so many that there is a segment for each kill.
SETTINGS = {"epochs": 50 if KILLS else 5, "batch_size": 1, "rank": 4, "learning_rate": 1e-3, "max_length": 128, "validation_share": 0.1}


UNDER_WAY = [Job.State.WAITING, Job.State.QUEUED, Job.State.RUNNING]


@pytest.fixture
def base(tmp_path: Path) -> Version:
    folder = tiny_base(tmp_path / "base")
    artifact = making.make_artifact(**{file.name: file.read_bytes() for file in folder.iterdir()})
    listing = making.make_listing(allow_finetune=True)
    owner = making.owner_of(listing.publisher)
    return making.release(publishing.create_weights_version(owner, listing, number="1.0.0", artifact=artifact, facts=making.FACTS))


def started(base: Version, somebody: User) -> Job:
    publisher = making.make_publisher(somebody)
    content = b"\n".join(chat_line(f"Which number follows {n}?", f"It is {n + 1}.") for n in range(60))
    file = files.save(somebody, publisher, name="numbers.jsonl", stream=io.BytesIO(content), purpose="fine-tune")
    job = finetunes.start(somebody, publisher, base=base, file=file, settings=SETTINGS)
    Job.objects.filter(pk__in=[job.pk, job.after_id]).update(max_attempts=1000)  # here attempts are not what is scarce
    return job


def ended(job: Job) -> Job:
    wait_until(lambda: Job.objects.get(pk=job.pk).has_ended, within_s=400, what="the end of the job")
    job.refresh_from_db()
    assert (job.state, job.error) == ("succeeded", "")
    return job


def after_a_segment(job: Job) -> Job:
    """The job once another segment of it has become current, or it has ended."""
    before = Job.objects.get(pk=job.pk).segment
    moved = Job.objects.filter(pk=job.pk).exclude(segment=before, state__in=UNDER_WAY)
    return wait_until(moved.first, within_s=300, what="a segment")


def kill(stack: Stack, victim: str) -> None:
    if victim == "the broker's data":
        with redis.Redis(port=stack.valkey_port, username="store", password=settings.VALKEY_PASSWORDS["store"]) as valkey:
            valkey.flushdb()
        return
    for pid in wait_until(lambda: stack.pids(*VICTIMS[victim]), what=f"{victim} to be there"):
        os.kill(pid, signal.SIGKILL)


def results_of(job: Job) -> dict[str, Any]:
    """What must not depend on what happened: all but times."""
    return {name: value for name, value in job.result.items() if not name.startswith("seconds")}


def test_whatever_dies_a_job_ends_once_with_the_bits_of_an_undisturbed_run(stack: Stack, base: Version) -> None:
    somebody = making.make_user()
    undisturbed = ended(started(base, somebody))
    chance = random.Random(SEED)
    kills = [chance.choice([*VICTIMS, "the broker's data"]) for _ in range(KILLS)] or SHORT
    killed: list[str] = []

    job = started(base, somebody)
    for victim in kills:
        if after_a_segment(job).has_ended:
            ended(job)
            job = started(base, somebody)  # there are more kills than segments
        else:
            kill(stack, victim)
            killed.append(victim)
    ended(job)

    assert len(killed) >= len(kills) // 2
    assert results_of(job) == results_of(undisturbed)
    assert Notification.objects.filter(user=somebody, url__contains=job.public_id).count() == 1
    segments = list(job.segments.order_by("number"))
    assert [segment.number for segment in segments] == list(range(len(segments)))
    steps = [event["step"] for segment in segments for event in segment.events]
    assert steps == sorted(steps)
    losses = {event["step"]: event.get("loss") for segment in segments for event in segment.events}
    assert losses == {event["step"]: event.get("loss") for segment in undisturbed.segments.all() for event in segment.events}
