"""A base that is taken down while jobs work on it: they stop, say why, cost nothing, and may go on when it is back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.urls import reverse

from inference import jobs as worker
from inference.protocol import Verdict
from store.billing import ledger
from store.billing.models import Reservation
from store.catalog import publishing
from store.catalog.models import Version
from store.jobs import claims, dispatch, evaluations
from store.jobs.errors import BaseNotTrainable, NotEvaluable
from store.jobs.models import Job
from store.jobs.reconciliation import reconcile
from store.moderation import decisions
from store.notifications.models import Notification
from tests.inference.job_bench import CITIES, chat_line
from tests.inference.test_jobs import children
from tests.inference.tiny import tiny_base
from tests.jobs.test_evaluations import TheStore, files_of, run
from tests.jobs.test_finetunes import GOOD, Scene
from tests.jobs.test_views import signed_in
from tests.jobs.working import claim_of, fresh, outcome_of, segment_of
from tests.making import (
    FACTS,
    make_adapter,
    make_artifact,
    make_base,
    make_listing,
    make_prompt,
    make_reviewer,
    make_trained,
    make_user,
    owner_of,
    release,
)

pytestmark = pytest.mark.django_db(transaction=True)
REASON = "It leaks what people told it."


@pytest.fixture
def scene() -> Scene:
    return Scene()


def training(scene: Scene) -> Job:
    """A fine-tune that a worker has claimed as c1 and recorded a segment of."""
    job = scene.start(batch_size=1)
    scene.validate(job, GOOD)
    claims.claim(claim_of(job))
    claims.segment(segment_of(job, 0))
    return fresh(job)


def take_down_version(base: Version) -> None:
    decisions.suspend(make_reviewer(), base, reason=REASON)


def take_down_listing(base: Version) -> None:
    decisions.suspend_listing(make_reviewer(), base.listing, reason=REASON)


@pytest.mark.parametrize("take_down", [take_down_version, take_down_listing])
def test_a_running_fine_tune_stops_when_its_base_is_taken_down(scene: Scene, settings: Any, take_down: Callable[[Version], None]) -> None:
    settings.FINETUNE_PRICE_MICRO_PER_STEP = 10
    ledger.grant(None, scene.owner, 1000, cause="grant:test")
    job = training(scene)
    assert reconcile().stopped == 0

    take_down(scene.base)

    assert (reconcile().stopped, reconcile().stopped) == (1, 0)
    stopped = fresh(job)
    assert (stopped.state, stopped.error_code, stopped.claim, stopped.checkpoint) == ("failed", "taken_down", "", "0" * 64)
    assert claims.heartbeat(claim_of(job)) is Verdict.LOST
    assert claims.segment(segment_of(job, 1)) is Verdict.LOST
    assert claims.finished(outcome_of(job, result={"steps": 1})) is False
    assert Reservation.objects.get().state == "voided"
    assert Notification.objects.get(user=scene.owner, kind=Notification.Kind.JOB_FAILED).url == f"/studio/jobs/{job.public_id}/"
    page = signed_in(scene.owner).get(reverse("jobs:job", args=[job.public_id])).content.decode()
    assert "was taken down meanwhile, so it was stopped. It costs nothing." in page


def test_it_stops_too_when_what_its_base_was_trained_from_is_taken_down(scene: Scene) -> None:
    root = make_base()
    scene.base = make_trained(root)
    job = training(scene)

    take_down_version(root)
    reconcile()

    assert (fresh(job).state, fresh(job).error_code) == ("failed", "taken_down")


def test_one_whose_data_is_still_checked_stops_with_its_check_and_for_its_own_reason(scene: Scene) -> None:
    job = scene.start()
    assert job.after is not None
    claims.claim(claim_of(job.after))

    take_down_version(scene.base)

    assert reconcile().stopped == 2
    assert [fresh(of).error_code for of in (job, job.after)] == ["taken_down", "taken_down"]


def test_it_goes_on_from_its_checkpoint_once_the_base_is_back_and_not_before(scene: Scene) -> None:
    job, reviewer = training(scene), make_reviewer()
    decisions.suspend(reviewer, scene.base, reason=REASON)
    reconcile()
    with pytest.raises(BaseNotTrainable):
        dispatch.retry(scene.owner, fresh(job))
    assert fresh(job).state == "failed"

    decisions.restore(reviewer, scene.base, reason="It was a mistake.")
    dispatch.retry(scene.owner, fresh(job))

    assert (fresh(job).state, fresh(job).attempt, fresh(job).checkpoint) == ("queued", 2, "0" * 64)
    assert reconcile().stopped == 0


def test_one_that_is_paused_stays_so_and_others_are_left_alone(scene: Scene) -> None:
    paused, other = training(scene), training(Scene())
    dispatch.pause(scene.owner, paused)
    claims.segment(segment_of(paused, 1))

    take_down_version(scene.base)

    assert reconcile().stopped == 0
    assert (fresh(paused).state, fresh(other).state) == ("paused", "running")


def test_an_evaluation_stops_when_the_version_or_what_it_builds_on_is_taken_down() -> None:
    adapter = make_adapter(make_base())
    prompt, untouched = make_prompt(adapter), make_prompt()
    of_prompt, of_other = (evaluations.start(owner_of(v.listing.publisher), v, suites=["answer"]) for v in (prompt, untouched))
    claims.claim(claim_of(of_prompt))

    take_down_version(adapter)

    assert reconcile().stopped == 1
    assert (fresh(of_prompt).state, fresh(of_prompt).error_code, fresh(of_other).state) == ("failed", "taken_down", "queued")
    assert claims.heartbeat(claim_of(of_prompt)) is Verdict.LOST
    page = signed_in(owner_of(prompt.listing.publisher)).get(reverse("jobs:job", args=[of_prompt.public_id])).content.decode()
    assert "was taken down meanwhile" in page


def test_an_evaluation_is_not_tried_again_while_what_it_measures_is_taken_down() -> None:
    adapter, reviewer = make_adapter(make_base()), make_reviewer()
    user = owner_of(adapter.listing.publisher)
    job = evaluations.start(user, adapter, suites=["answer"])
    decisions.suspend(reviewer, adapter, reason=REASON)
    reconcile()

    with pytest.raises(NotEvaluable):
        dispatch.retry(user, fresh(job))
    decisions.restore(reviewer, adapter, reason="It was a mistake.")
    dispatch.retry(user, fresh(job))

    assert fresh(job).state == "queued"


def test_what_is_made_from_nothing_builds_on_nothing_that_could_be_taken_down(scene: Scene) -> None:
    Job.objects.create(kind=Job.Kind.PRETRAINING, publisher=scene.publisher, created_by=make_user(), params={"settings": {}})
    Version.objects.update(state="suspended")

    assert reconcile().stopped == 0


def test_a_process_that_trains_is_ended_and_another_goes_on_once_the_base_is_back(tmp_path: Path) -> None:
    scene, reviewer = Scene(), make_reviewer()
    listing = make_listing(allow_finetune=True)
    weights = make_artifact(**files_of(tiny_base(tmp_path / "base")))
    made = publishing.create_weights_version(owner_of(listing.publisher), listing, number="1.0.0", artifact=weights, facts=FACTS)
    scene.base, scene.file = release(made), scene.put(b"\n".join(chat_line(f"Where is {c}?", f"{c} is in {c}land.") for c in CITIES))
    job = scene.start(rank=2, epochs=4, batch_size=2, max_length=128)
    scene.validate(job, GOOD)
    place = worker.Place(
        "here",
        settings.ARTIFACT_URL,
        tmp_path / "cache",
        lambda job, event: None,
        segment_s=0.0,
        heartbeat_every_s=0.2,
        work=lambda: worker.Child(worker.Share(nice=0)),  # what else the machine does shall not starve it
    )
    while_it_runs: list[Callable[[], object]] = [lambda: decisions.suspend(reviewer, scene.base, reason=REASON), reconcile]

    stopped = run(job, place, TheStore(on_segment=lambda: [while_it_runs.pop(0)() for _ in while_it_runs[:]]))

    assert (stopped.state, stopped.error_code, stopped.segment, stopped.attempt) == ("failed", "taken_down", 1, 1)
    assert children() == []
    decisions.restore(reviewer, scene.base, reason="It was a mistake.")
    dispatch.retry(scene.owner, stopped)
    done = run(job, place)
    assert (done.state, done.attempt, done.error) == ("succeeded", 2, "")
    assert [event["step"] for segment in done.segments.all() for event in segment.events][-1] == done.result["steps"]
