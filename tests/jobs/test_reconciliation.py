"""Jobs survive everything: a broker that loses all, a worker that falls silent, a predecessor that ended unseen."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from django.utils import timezone

from inference.protocol import Verdict
from store import valkey
from store.jobs import claims, dispatch
from store.jobs.models import Job
from store.jobs.reconciliation import LOST_AFTER, WATCHING_KEY, reconcile
from store.jobs.sending import RESEND_AFTER
from tests.jobs.working import claim_of, claimed, fresh, lose_the_broker, make_job, outcome_of, queued, segment_of
from tests.making import make_publisher, owner_of

pytestmark = pytest.mark.django_db(transaction=True)


def watched_for(seconds: float) -> None:
    valkey.client().set(WATCHING_KEY, time.time() - seconds)


def age(job: Job, field: str, by: timedelta) -> None:
    Job.objects.filter(pk=job.pk).update(**{field: timezone.now() - by})


def fall_silent(job: Job) -> None:
    watched_for(60)
    age(job, "heartbeat_at", LOST_AFTER + timedelta(seconds=1))


def test_what_the_broker_lost_is_sent_again_when_its_message_can_no_longer_be_read() -> None:
    job = make_job()
    lose_the_broker()
    assert (reconcile().sent, queued()) == (0, [])

    age(job, "dispatched_at", RESEND_AFTER + timedelta(seconds=1))
    sent = reconcile().sent

    assert (sent, [message["job"] for message in queued()]) == (1, [job.public_id])
    assert reconcile().sent == 0


def test_a_silent_worker_loses_the_job_to_a_new_attempt_from_its_checkpoint() -> None:
    job = claimed()
    claims.segment(segment_of(job, 0))
    fall_silent(job)

    lost = reconcile().lost

    again = fresh(job)
    assert (lost, again.state, again.attempt, again.claim, again.segment) == (1, Job.State.QUEUED, 2, "", 1)
    assert claims.segment(segment_of(job, 1)) is Verdict.LOST
    assert (fresh(job).segment, reconcile().lost) == (1, 0)


def test_nobody_is_taken_for_lost_by_a_watch_that_has_just_begun() -> None:
    job = claimed()
    age(job, "heartbeat_at", timedelta(hours=1))

    lost = reconcile().lost

    assert (lost, fresh(job).state, fresh(job).claim) == (0, Job.State.RUNNING, "c1")


def test_a_heartbeat_keeps_the_job() -> None:
    job = claimed()
    fall_silent(job)
    claims.heartbeat(claim_of(job))

    assert (reconcile().lost, fresh(job).claim) == (0, "c1")


def test_a_job_whose_attempts_ran_out_fails_and_says_why() -> None:
    job = claimed(max_attempts=1)
    fall_silent(job)

    reconcile()

    job = fresh(job)
    assert (job.state, job.error_code, job.error_detail) == (Job.State.FAILED, "worker_lost", {"attempts": 1, "worker": "here"})


def test_a_lost_job_that_should_pause_or_end_does_so() -> None:
    publisher = make_publisher()
    paused, cancelled = claimed(publisher), claimed(publisher)
    dispatch.pause(owner_of(publisher), paused)
    dispatch.cancel(owner_of(publisher), cancelled)
    fall_silent(paused)
    fall_silent(cancelled)

    reconcile()

    assert (fresh(paused).state, fresh(cancelled).state) == (Job.State.PAUSED, Job.State.CANCELLED)


def test_a_back_off_is_waited_for() -> None:
    job = claimed()
    claims.failed(outcome_of(job, error="x", code="internal", retriable=True))
    lose_the_broker()
    assert reconcile().sent == 0

    age(job, "not_before", timedelta(seconds=1))

    assert reconcile().sent == 1
    assert queued()[0]["attempt"] == 2


def test_a_follower_begins_when_its_predecessor_succeeds_and_ends_when_it_fails() -> None:
    good, bad = make_job(kind=Job.Kind.VALIDATION), make_job(kind=Job.Kind.VALIDATION)
    followers = [make_job(after=good), make_job(after=bad)]
    assert queued() == []
    for job in (good, bad):
        claims.claim(claim_of(job))

    claims.finished(outcome_of(good, result={"valid": True}))
    claims.failed(outcome_of(bad, error="No.", code="artifact_unusable"))

    assert [fresh(job).state for job in followers] == [Job.State.QUEUED, Job.State.FAILED]
    assert fresh(followers[1]).error_code == "predecessor_failed"
    assert [message["job"] for message in queued()] == [followers[0].public_id]


def test_a_follower_created_after_the_end_of_its_predecessor_is_started() -> None:
    validation = make_job(kind=Job.Kind.VALIDATION)
    claims.claim(claim_of(validation))
    claims.finished(outcome_of(validation, result={"valid": True}))
    follower = make_job(after=validation)

    followed = reconcile().followed

    assert (followed, fresh(follower).state) == (1, Job.State.QUEUED)
