"""Jobs survive everything: a broker that loses all, a worker that falls silent, a predecessor that ended unseen."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from kombu.exceptions import OperationalError

from inference.protocol import Verdict
from store import valkey
from store.accounts.models import Publisher
from store.jobs import claims, dispatch, sending
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


def in_the_queue(publisher: Publisher, count: int) -> list[Job]:
    """Jobs that nobody has sent yet, written at once."""
    some = (Job(kind=Job.Kind.FINETUNE, publisher=publisher, params={"settings": {}}) for _ in range(count))
    return Job.objects.bulk_create(some)


def test_publishers_take_turns_and_nobody_waits_behind_anothers_thousand(settings: Any) -> None:
    settings.JOBS_PER_PUBLISHER = 2
    many, few, busy = make_publisher(), make_publisher(), make_publisher()
    first, second, *_rest = in_the_queue(many, 1000)
    running = claimed(busy)
    lose_the_broker()
    (last_of_busy,) = in_the_queue(busy, 1)
    one, other = in_the_queue(few, 2)

    sent = reconcile().sent

    in_order = [message["job"] for message in reversed(queued())]
    assert in_order == [job.public_id for job in (first, one, second, last_of_busy, other)]
    assert (sent, reconcile().sent) == (5, 0)
    claims.finished(outcome_of(running, result={"steps": 1}))
    assert reconcile().sent == 0  # the thousand wait for their publisher's own places alone
    claims.claim(claim_of(fresh(first)))
    claims.finished(outcome_of(fresh(first), result={"steps": 1}))
    assert Job.objects.filter(publisher=many, dispatched_at__isnull=False).count() == 3


def test_what_has_no_limit_waits_for_no_publishers_turn(settings: Any) -> None:
    settings.JOBS_PER_PUBLISHER = 2
    in_the_queue(make_publisher(), 4)
    checks = Job.objects.bulk_create(Job(kind=Job.Kind.CHECK, params={}) for _ in range(4))

    reconcile()

    assert Job.objects.filter(pk__in=[check.pk for check in checks], dispatched_at__isnull=False).count() == 4
    assert len(queued()) == 2


def test_a_job_that_cannot_be_put_on_its_queue_leaves_the_others_due(monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        in_the_queue(make_publisher(), 1)
    with monkeypatch.context() as broken:
        broken.setattr(sending, "QUEUES", None)
        with pytest.raises(AttributeError):
            reconcile()

    assert not Job.objects.filter(dispatched_at__isnull=False).exists()
    assert (reconcile().sent, len(queued())) == (2, 2)


def test_a_broker_that_is_away_takes_nothing_and_all_is_sent_when_it_is_back(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = in_the_queue(make_publisher(), 2)
    with monkeypatch.context() as away:
        away.setattr(sending.app, "send_task", refuse)
        assert reconcile().sent == 0

    assert reconcile().sent == 2
    assert {message["job"] for message in queued()} == {job.public_id for job in waiting}


def refuse(*arguments: Any, **options: Any) -> None:
    raise OperationalError("there is no broker")
