"""What workers say: of many at once one wins, and whatever carries another claim changes nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from inference.protocol import Claim, Verdict
from store.jobs import claims, dispatch
from store.jobs.models import Job, JobSegment
from tests.jobs.working import claim_of, claimed, fresh, make_job, outcome_of, queued, segment_of
from tests.making import make_publisher, owner_of

pytestmark = pytest.mark.django_db(transaction=True)


def at_once(*acts: Callable[[], Any]) -> list[Any]:
    """The answers of acts that begin in the same moment, each in a thread of its own."""
    answers: list[Any] = [None] * len(acts)
    barrier = threading.Barrier(len(acts))

    def act(number: int) -> None:
        barrier.wait()
        try:
            answers[number] = acts[number]()
        finally:
            connection.close()

    threads = [threading.Thread(target=act, args=(number,)) for number in range(len(acts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_of_eight_workers_that_claim_a_job_at_once_one_gets_it() -> None:
    job = make_job()

    verdicts = at_once(*(lambda n=n: claims.claim(claim_of(job, f"c{n}", f"worker {n}")) for n in range(8)))  # type: ignore[misc]

    assert sorted(verdicts) == [Verdict.GO_ON] + [Verdict.LOST] * 7
    winner = verdicts.index(Verdict.GO_ON)
    assert (fresh(job).state, fresh(job).claim, fresh(job).worker) == (Job.State.RUNNING, f"c{winner}", f"worker {winner}")


def test_a_claim_whose_answer_was_lost_is_answered_again() -> None:
    job = claimed()

    assert claims.claim(claim_of(job)) is Verdict.GO_ON
    assert job.events.filter(kind="claimed").count() == 1


def test_a_message_of_an_earlier_attempt_finds_nothing_to_claim() -> None:
    job = make_job()
    Job.objects.filter(pk=job.pk).update(attempt=2)

    assert claims.claim(claim_of(job)) is Verdict.LOST
    assert fresh(job).state == Job.State.QUEUED


def test_a_publisher_gets_no_more_places_than_the_limit_however_many_workers_ask(settings: Any) -> None:
    settings.JOBS_PER_PUBLISHER = 2
    publisher = make_publisher()
    waiting = [make_job(publisher) for _ in range(5)]
    other = make_job(make_publisher())

    verdicts = at_once(*(lambda job=job: claims.claim(claim_of(job)) for job in [*waiting, other]))  # type: ignore[misc]

    assert sorted(verdicts[:5]) == [Verdict.GO_ON] * 2 + [Verdict.LOST] * 3
    assert verdicts[5] is Verdict.GO_ON


def test_the_next_job_is_sent_when_a_place_becomes_free(settings: Any) -> None:
    settings.JOBS_PER_PUBLISHER = 1
    publisher = make_publisher()
    first = claimed(publisher)
    second = make_job(publisher)
    assert [message["job"] for message in queued()] == [first.public_id]

    claims.finished(outcome_of(first, result={"steps": 1}))

    assert [message["job"] for message in queued()] == [second.public_id, first.public_id]


def test_a_segment_becomes_current_once() -> None:
    job = claimed()

    first, again = claims.segment(segment_of(job, 0)), claims.segment(segment_of(job, 0))

    assert (first, again) == (Verdict.GO_ON, Verdict.GO_ON)
    assert (fresh(job).segment, fresh(job).checkpoint, fresh(job).done) == (1, "0" * 64, 0.5)
    assert JobSegment.objects.filter(job=job).count() == 1


def test_of_two_deliveries_of_a_segment_at_once_one_is_recorded() -> None:
    job = claimed()

    verdicts = at_once(*[lambda: claims.segment(segment_of(job, 0))] * 4)

    assert set(verdicts) == {Verdict.GO_ON}
    assert (JobSegment.objects.filter(job=job).count(), fresh(job).segment) == (1, 1)


@pytest.mark.parametrize("number", [1, 5])
def test_a_segment_out_of_turn_is_refused(number: int) -> None:
    job = claimed()

    assert claims.segment(segment_of(job, number)) is Verdict.LOST
    assert (fresh(job).segment, fresh(job).checkpoint) == (0, "")


def test_whatever_carries_another_claim_changes_nothing() -> None:
    job = claimed()
    before = Job.objects.filter(pk=job.pk).values().get()

    answers = [
        claims.heartbeat(claim_of(job, "c2")),
        claims.segment(segment_of(job, 0, claim="c2")),
        claims.finished(outcome_of(job, claim="c2", result={"manifest": "stolen"})),
        claims.failed(outcome_of(job, claim="c2", error="no", code="no")),
        claims.heartbeat(Claim(job=job.public_id, attempt=1, claim="", worker="")),
    ]

    assert answers == [Verdict.LOST, Verdict.LOST, False, False, Verdict.LOST]
    assert Job.objects.filter(pk=job.pk).values().get() == before
    assert not job.segments.exists()


def test_a_result_delivered_twice_takes_effect_once() -> None:
    job = claimed()
    outcome = outcome_of(job, result={"steps": 3})

    answers = at_once(*[lambda: claims.finished(outcome)] * 3)

    assert sorted(answers) == [False, False, True]
    assert (fresh(job).state, fresh(job).result, fresh(job).done) == (Job.State.SUCCEEDED, {"steps": 3}, 1.0)
    assert job.events.filter(kind="succeeded").count() == 1


def test_a_failure_that_may_mend_gets_another_attempt_after_a_pause() -> None:
    job = claimed()
    claims.segment(segment_of(job, 0))

    claims.failed(outcome_of(job, error="The disk is full.", code="worker_storage", retriable=True))

    job = fresh(job)
    assert (job.state, job.attempt, job.claim, job.checkpoint, job.segment) == (Job.State.QUEUED, 2, "", "0" * 64, 1)
    assert job.not_before is not None
    assert claims.claim(claim_of(job, "c2")) is Verdict.LOST


def test_a_failure_that_cannot_mend_is_final() -> None:
    job = claimed()

    claims.failed(outcome_of(job, error="Line 3 is not JSON.", code="data_unusable", detail={"line": 3}))

    job = fresh(job)
    assert (job.state, job.error_code, job.error, job.error_detail) == (
        Job.State.FAILED,
        "data_unusable",
        "Line 3 is not JSON.",
        {"line": 3},
    )


def test_attempts_run_out() -> None:
    job = claimed(max_attempts=1)

    claims.failed(outcome_of(job, error="It died.", code="process_died", retriable=True))

    assert (fresh(job).state, fresh(job).attempt) == (Job.State.FAILED, 1)


def test_attempts_run_out_for_a_job_that_gets_no_further_alone() -> None:
    job = claimed()
    pauses = []
    for attempt in range(1, 6):
        claims.claim(claim_of(fresh(job)))
        claims.segment(segment_of(fresh(job), attempt - 1))
        claims.failed(outcome_of(fresh(job), error="It died.", code="process_died", retriable=True))
        pauses.append(_waited_for(job))
    for _ in range(2):
        claims.claim(claim_of(fresh(job)))
        claims.failed(outcome_of(fresh(job), error="It died.", code="process_died", retriable=True))
        pauses.append(_waited_for(job))

    assert (fresh(job).state, fresh(job).attempt, fresh(job).segment) == (Job.State.FAILED, 7, 5)
    assert pauses == [10] * 5 + [20, None]


def test_what_is_wrong_around_a_job_is_waited_for_for_most_of_an_hour_and_costs_it_no_attempt() -> None:
    job = claimed()
    pauses = []
    while fresh(job).state != Job.State.FAILED:
        claims.claim(claim_of(fresh(job)))
        claims.failed(outcome_of(fresh(job), error="It is away.", code="artifacts_unreachable", retriable=True))
        pauses.append(_waited_for(job))

    assert pauses == [10, 20, 40, 80, 160, 320, *[600] * 6, None]


def test_an_outage_in_the_last_attempt_is_waited_for_too_and_a_new_try_has_all_its_patience_again() -> None:
    publisher = make_publisher()
    job = claimed(publisher)
    for code in ("process_died", "process_died", *["artifacts_unreachable"] * 9):
        assert fresh(job).state != Job.State.FAILED
        claims.claim(claim_of(fresh(job)))
        claims.failed(outcome_of(fresh(job), error="It is away.", code=code, retriable=True))
        Job.objects.filter(pk=job.pk).update(not_before=None)
    assert fresh(job).state == Job.State.FAILED

    dispatch.retry(owner_of(publisher), fresh(job))
    claims.claim(claim_of(fresh(job)))
    claims.failed(outcome_of(fresh(job), error="It is away.", code="artifacts_unreachable", retriable=True))

    assert _waited_for(job) == 10


def test_a_wished_pause_takes_effect_when_the_attempt_fails() -> None:
    job = claimed()
    Job.objects.filter(pk=job.pk).update(wish=Job.Wish.PAUSE)

    claims.failed(outcome_of(job, error="It is away.", code="artifacts_unreachable", retriable=True))

    assert (fresh(job).state, fresh(job).wish) == (Job.State.PAUSED, Job.Wish.NONE)


def _waited_for(job: Job) -> int | None:
    """The seconds until the next attempt, which may then begin; None when there is none."""
    begun = fresh(job)
    if begun.not_before is None:
        return None
    Job.objects.filter(pk=job.pk).update(not_before=None)
    pause_s = begun.events.filter(kind="retrying").last().detail["pause_s"]
    assert timezone.now() < begun.not_before <= timezone.now() + timedelta(seconds=pause_s)
    return int(pause_s)


def test_a_worker_that_leaves_at_a_checkpoint_costs_no_attempt() -> None:
    job = claimed()
    claims.segment(segment_of(job, 0))

    claims.failed(outcome_of(job, code="paused", error="The job was left at a checkpoint.", retriable=True))

    assert (fresh(job).state, fresh(job).attempt, fresh(job).max_attempts) == (Job.State.QUEUED, 2, 4)
    assert queued()[0] | {"trace": ""} == {
        "job": job.public_id,
        "attempt": 2,
        "kind": "finetune",
        "params": job.params,
        "checkpoint": "0" * 64,
        "segment": 1,
        "trace": "",
    }


def test_a_wished_pause_takes_effect_with_the_segment_and_the_worker_is_told() -> None:
    publisher = make_publisher()
    job = claimed(publisher)
    dispatch.pause(owner_of(publisher), job)

    told = claims.heartbeat(claim_of(job))
    verdicts = [claims.segment(segment_of(job, 0)), claims.segment(segment_of(job, 0))]
    late = claims.failed(outcome_of(job, code="paused", error="The job was left at a checkpoint.", retriable=True))

    assert (told, verdicts, late) == (Verdict.PAUSE, [Verdict.PAUSE, Verdict.PAUSE], False)
    assert (fresh(job).state, fresh(job).claim, fresh(job).segment) == (Job.State.PAUSED, "", 1)


def test_a_wished_cancellation_reaches_the_worker_and_ends_the_job() -> None:
    publisher = make_publisher()
    job = claimed(publisher)
    dispatch.cancel(owner_of(publisher), job)

    told = claims.heartbeat(claim_of(job))
    claims.failed(outcome_of(job, code="cancelled", error="The job was cancelled."))

    assert told is Verdict.CANCEL
    assert (fresh(job).state, fresh(job).wish) == (Job.State.CANCELLED, "")
