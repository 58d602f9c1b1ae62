"""What people do to jobs, in which states, and who may."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from inference.protocol import Verdict
from store.accounts.models import AuditEntry, User
from store.errors import NotAllowed, NotFound
from store.jobs import claims, dispatch
from store.jobs.errors import NotRetriable, WrongState
from store.jobs.models import Job
from tests.jobs.working import claim_of, claimed, fresh, make_job, outcome_of, queued, segment_of
from tests.making import join, make_publisher, make_user, owner_of

pytestmark = pytest.mark.django_db(transaction=True)
ACTS = [dispatch.pause, dispatch.resume, dispatch.cancel, dispatch.retry]


def in_state(state: str) -> tuple[User, Job]:
    publisher = make_publisher()
    job = make_job(publisher)
    Job.objects.filter(pk=job.pk).update(state=state)
    return owner_of(publisher), fresh(job)


def test_a_new_job_is_sent_to_its_queue_once_it_is_committed() -> None:
    job = make_job()

    (message,) = queued()
    assert (message["job"], message["kind"], message["attempt"], message["checkpoint"]) == (job.public_id, "finetune", 1, None)
    assert fresh(job).dispatched_at is not None
    assert queued("jobs.checks") == []


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize(("who", "refusal"), [("stranger", NotFound), ("member", NotAllowed), ("visitor", NotFound)])
def test_nobody_else_may_act_and_nothing_changes(act: Callable[[Any, Job], None], who: str, refusal: type[Exception]) -> None:
    publisher = make_publisher()
    job = claimed(publisher)
    people: dict[str, Any] = {"stranger": make_user(), "member": join(publisher, "member"), "visitor": None}
    before = Job.objects.filter(pk=job.pk).values().get()
    entries = AuditEntry.objects.count()

    with pytest.raises(refusal):
        act(people[who], job)

    assert Job.objects.filter(pk=job.pk).values().get() == before
    assert AuditEntry.objects.count() == entries


POSSIBLE = {
    dispatch.pause: {"queued": "paused", "running": "running"},
    dispatch.resume: {"paused": "queued"},
    dispatch.cancel: {"waiting": "cancelled", "queued": "cancelled", "paused": "cancelled", "running": "running"},
    dispatch.retry: {"failed": "queued", "cancelled": "queued"},
}


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("state", Job.State.values)
def test_each_act_is_possible_in_its_states_alone(act: Callable[[User, Job], None], state: str) -> None:
    user, job = in_state(state)
    after = POSSIBLE[act].get(state)

    if after is None:
        with pytest.raises(WrongState):
            act(user, job)
    else:
        act(user, job)

    assert fresh(job).state == (after or state)
    assert AuditEntry.objects.filter(target=job.public_id).count() == (after is not None)


def test_a_paused_job_goes_on_from_its_checkpoint_in_a_new_attempt() -> None:
    publisher = make_publisher()
    user, job = owner_of(publisher), claimed(publisher)
    dispatch.pause(user, job)
    claims.segment(segment_of(job, 0))

    dispatch.resume(user, fresh(job))

    message = queued()[0]
    assert (message["attempt"], message["checkpoint"], message["segment"]) == (2, "0" * 64, 1)
    assert (fresh(job).attempt, fresh(job).max_attempts) == (2, 4)
    assert claims.claim(claim_of(job)) is Verdict.LOST


def test_a_pause_that_has_not_happened_yet_can_be_taken_back() -> None:
    publisher = make_publisher()
    user, job = owner_of(publisher), claimed(publisher)
    dispatch.pause(user, job)

    dispatch.resume(user, job)

    assert claims.heartbeat(claim_of(job)) is Verdict.GO_ON
    assert (fresh(job).state, fresh(job).attempt) == (Job.State.RUNNING, 1)


def test_a_failed_job_gets_new_attempts_and_forgets_its_failure() -> None:
    publisher = make_publisher()
    job = claimed(publisher, max_attempts=1)
    claims.segment(segment_of(job, 0))
    claims.failed(outcome_of(job, error="It died.", code="process_died", retriable=False))

    dispatch.retry(owner_of(publisher), fresh(job))

    job = fresh(job)
    assert (job.state, job.error, job.error_code, job.attempt, job.max_attempts) == (Job.State.QUEUED, "", "", 2, 4)
    assert queued()[0]["checkpoint"] == "0" * 64


def test_a_file_that_cannot_be_trained_on_is_not_tried_again() -> None:
    user, job = in_state("failed")
    Job.objects.filter(pk=job.pk).update(error_code="data_invalid")

    with pytest.raises(NotRetriable):
        dispatch.retry(user, fresh(job))

    assert fresh(job).state == Job.State.FAILED


def test_a_fine_tune_whose_validation_was_lost_begins_with_the_validation_again() -> None:
    publisher = make_publisher()
    user = owner_of(publisher)
    validation = claimed(publisher, kind=Job.Kind.VALIDATION, max_attempts=1)
    job = make_job(publisher, after=validation)
    claims.failed(outcome_of(validation, error="It died.", code="process_died", retriable=True))
    assert fresh(job).error_code == "predecessor_failed"

    dispatch.retry(user, fresh(job))

    assert (fresh(job).state, fresh(validation).state) == (Job.State.WAITING, Job.State.QUEUED)
    assert queued("jobs.checks")[0]["attempt"] == 2
