"""Processes die at any moment of a job, and it ends once, with the very bits of a run that nothing happened to.

Here each process dies once under one job, in every test run; `make soak` kills many more, in an order that SOAK_SEED draws.
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
from django.conf import settings as store_settings

from store.accounts.models import User
from store.billing import ledger
from store.billing.models import Transaction
from store.catalog import publishing
from store.catalog.models import Version
from store.jobs import files, finetunes
from store.jobs.models import Job
from store.notifications.models import Notification
from tests import making
from tests.inference.job_bench import chat_line
from tests.inference.tiny import tiny_base
from tests.stack import PRICE_MICRO_PER_STEP, Stack, wait_until

pytestmark = pytest.mark.stack
KILLS = int(os.environ.get("SOAK_KILLS", "0"))
SEED = int(os.environ.get("SOAK_SEED", "1"))
VICTIMS = {
    "the job's process": ("inference.job_process",),
    "the training worker": ("inference.worker", "jobs.training"),
    "the store's worker": ("store.celery", "store.events"),
    "beat": ("store.celery", "beat"),
    "the web process": ("uvicorn", "store.asgi"),
    "the broker": ("valkey-server",),
}
# Each after another segment of the job. Beat while the job waits to be found lost, which beat has the store look for.
SHORT = (
    ("the web process",),
    ("the store's worker",),
    ("the broker",),
    ("the broker's data",),
    ("the job's process",),
    ("the training worker", "beat"),
)
# Some hundred steps of some milliseconds: ten seconds, and as many segments.
SETTINGS = {"epochs": 15, "batch_size": 1, "rank": 4, "learning_rate": 1e-3, "max_length": 128, "validation_share": 0.1}
CREDIT_MICRO = 1_000_000_000
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
    return finetunes.start(somebody, publisher, base=base, file=file, settings=SETTINGS)


def ended(job: Job) -> Job:
    wait_until(lambda: Job.objects.get(pk=job.pk).has_ended, within_s=600, what="the end of the job")
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
        with redis.Redis(port=stack.valkey_port, username="store", password=store_settings.VALKEY_PASSWORDS["store"]) as valkey:
            valkey.flushdb()
        return
    for pid in wait_until(lambda: stack.pids(*VICTIMS[victim]), what=f"{victim} to be there"):
        os.kill(pid, signal.SIGKILL)


def results_of(job: Job) -> dict[str, Any]:
    """What must not depend on what happened: all but times."""
    return {name: value for name, value in job.result.items() if not name.startswith("seconds")}


def test_whatever_dies_a_job_ends_once_with_the_bits_of_an_undisturbed_run(stack: Stack, base: Version, settings: Any) -> None:
    settings.FINETUNE_PRICE_MICRO_PER_STEP = PRICE_MICRO_PER_STEP
    somebody = making.make_user()
    ledger.grant(None, somebody, CREDIT_MICRO, cause=f"grant:{somebody.public_id}")
    undisturbed = ended(started(base, somebody))
    chance = random.Random(SEED)
    together = [(chance.choice([*VICTIMS, "the broker's data"]),) for _ in range(KILLS)] or SHORT

    jobs = [started(base, somebody)]
    for victims in together:
        while after_a_segment(jobs[-1]).has_ended:  # on a fast machine one job is over before all are killed
            jobs.append(started(base, somebody))
        for victim in victims:
            kill(stack, victim)

    for job in jobs:
        assert_like(undisturbed, ended(job))
    if together is SHORT:
        assert {"process_died", "worker_lost"} <= {event.detail["code"] for job in jobs for event in job.events.filter(kind="retrying")}
    steps = undisturbed.result["steps"]
    wallet = ledger.wallet_of(somebody)
    assert (wallet.balance_micro, wallet.held_micro) == (CREDIT_MICRO - (1 + len(jobs)) * steps * PRICE_MICRO_PER_STEP, 0)
    for victim in VICTIMS:
        wait_until(lambda words=VICTIMS[victim]: stack.pids(*words), what=f"{victim} to be there again")


def assert_like(undisturbed: Job, job: Job) -> None:
    """It ended once, with the same bits and losses; what it tells is whole, in order, and said once; it is paid for once."""
    assert results_of(job) == results_of(undisturbed)
    assert losses_of(job) == losses_of(undisturbed)
    segments = list(job.segments.order_by("number"))
    assert [segment.number for segment in segments] == list(range(len(segments)))
    attempts = [segment.attempt for segment in segments]
    assert attempts == sorted(attempts)
    happened = [event.kind for event in job.events.order_by("id")]
    assert happened[:3] == ["waiting", "queued", "claimed"]
    assert happened[-1] == "succeeded"
    assert happened.count("succeeded") == 1
    assert happened.count("claimed") == happened.count("retrying") + 1
    assert Notification.objects.filter(user=job.created_by, url__contains=job.public_id).count() == 1
    assert Transaction.objects.filter(cause=job.cause).count() == 1


def losses_of(job: Job) -> list[tuple[int, float | None]]:
    """Of each step, in the order in which the segments tell them."""
    told = [event for segment in job.segments.order_by("number") for event in segment.events]
    return [(event["step"], event.get("loss")) for event in told]
