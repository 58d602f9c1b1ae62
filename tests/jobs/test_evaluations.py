"""Evaluations: who may start one, what the worker gets, what is kept on the version and its base, and a run that is killed."""

from __future__ import annotations

import copy
import io
import os
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from django.conf import settings
from django.urls import reverse
from django.utils import timezone

from inference import jobs as worker
from inference.protocol import Claim, Outcome, Segment, Verdict
from inference.suites import BUILT_IN, METRICS_OF, built_in
from store.accounts.models import User
from store.billing.models import Reservation
from store.catalog import publishing, versions
from store.catalog.listings import set_prices
from store.catalog.models import Measurement, Version
from store.errors import NotAllowed, NotFound
from store.jobs import claims, evaluations, files, sending
from store.jobs.errors import EvaluationsUsedUp, EvaluationUnderWay, FileRejected, InvalidSetting, NotEvaluable
from store.jobs.models import Job, UploadedFile
from store.jobs.suites import METRICS, SUITES, headlines, in_order, label_of
from store.notifications.models import Notification
from tests import making
from tests.inference.test_jobs import children
from tests.inference.tiny import tiny_adapter, tiny_base
from tests.jobs.test_views import signed_in
from tests.jobs.working import claim_of, fresh, outcome_of, queued

pytestmark = pytest.mark.django_db(transaction=True)
ENGINE = {"version": "0.1.0", "source_sha256": "e" * 64, "torch": "2.13"}
METHOD = {"engine": ENGINE, "precision": "float32", "device": "x86_64", "runner": "native", "seed": 1, "draws": 2000}


@pytest.fixture
def adapter() -> Version:
    return making.make_adapter(making.make_base())


def owner(version: Version) -> User:
    return making.owner_of(version.listing.publisher)


def put(version: Version, content: bytes, name: str = "mine.jsonl") -> UploadedFile:
    return files.save(owner(version), version.listing.publisher, name=name, stream=io.BytesIO(content), purpose="evaluation")


def metric(name: str, value: float, base_value: float | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name, "value": value, "low": value - 1, "high": value + 1, "items": 20, "unit": "%"}
    found |= {"lower_is_better": False, "base_value": base_value, "difference": None}
    if base_value is not None:
        found |= {"difference": value - base_value, "difference_low": value - base_value - 2, "difference_high": value - base_value + 2}
    return found


def result_of(version: Version, *, suite: str = "answer", **changes: Any) -> dict[str, Any]:
    names = {"base": version.weights().artifact.digest, "adapter": "a" * 64, "instructions_sha256": ""}  # type: ignore[union-attr]
    row = {"suite": suite, "sha256": "5" * 64, "items": 20, "kind": "questions", "samples": []}
    return {
        "results": [row | {"metrics": [metric("f1", 30.0, 20.0), metric("exact_match", 10.0, 5.0)]}],
        "beside_results": [row | {"metrics": [metric("f1", 20.0), metric("exact_match", 5.0)]}],
        "method": METHOD | names,
        "beside": names | {"adapter": None},
        "record": "7" * 64,
        "beside_record": "8" * 64,
        "seconds": 12.0,
    } | changes


def finish(job: Job, result: dict[str, Any]) -> Job:
    claims.claim(claim_of(job))
    claims.finished(outcome_of(job, result=result))
    return fresh(job)


def test_the_stores_list_of_suites_is_the_workers() -> None:
    assert list(SUITES) == list(BUILT_IN)
    for name, suite in SUITES.items():
        theirs = built_in(name)
        assert suite.metrics == theirs.metrics, name
        assert suite.asks == theirs.asks, name
    assert {metric for metrics in METRICS_OF.values() for metric in metrics} <= METRICS.keys()


def test_the_worker_gets_what_it_needs_by_digest(adapter: Version) -> None:
    job = evaluations.start(owner(adapter), adapter, suites=["code", "answer"])

    assert adapter.base is not None
    assert adapter.base.artifact is not None
    assert adapter.artifact is not None
    assert job.params == {
        "base": adapter.base.artifact.digest,
        "adapter": adapter.artifact.digest,
        "instructions": "",
        "beside": {"adapter": None, "instructions": ""},
        "suites": ["answer", "code"],
        "file": None,
        "name": "",
        "limit": None,
        "records": [],
    }
    (task,) = queued("jobs.checks")
    assert (task["job"], task["kind"]) == (job.public_id, "evaluation")


def test_a_prompt_is_put_to_what_asks_beside_what_it_stands_on(adapter: Version) -> None:
    prompt = making.draft_prompt(adapter)

    job = evaluations.start(owner(prompt), prompt, suites=["answer"])

    assert job.params["instructions"] == "Answer in one sentence."
    assert job.params["beside"] == {"adapter": job.params["adapter"], "instructions": ""}
    Job.objects.all().delete()
    with pytest.raises(InvalidSetting):
        evaluations.start(owner(prompt), prompt, suites=["knowledge"])


def test_weights_are_put_beside_what_they_were_trained_from_and_the_numbers_kept_on_both(adapter: Version) -> None:
    base = adapter.base
    assert base is not None
    trained = making.make_trained(base)
    job = evaluations.start(owner(trained), trained, suites=["answer"])
    assert base.artifact is not None
    assert trained.artifact is not None

    finish(job, result_of(trained) | {"beside": {"base": base.artifact.digest, "adapter": None, "instructions_sha256": ""}})
    again = evaluations.start(owner(trained), trained, suites=["answer"])

    assert job.params["base"] == trained.artifact.digest
    assert job.params["beside"] == {"base": base.artifact.digest, "adapter": None, "instructions": ""}
    assert again.params["records"] == ["8" * 64]
    own, beside = (version.measurements.get(name="answer.f1") for version in (trained, base))
    assert (own.base_value, beside.value, beside.method["base"]) == (20.0, 20.0, base.artifact.digest)
    for path in (
        reverse("jobs:job", args=[job.public_id]),
        reverse("pages:measured", args=[trained.listing.publisher.slug, trained.listing.slug, trained.number]),
        reverse("pages:listing", args=[trained.listing.publisher.slug, trained.listing.slug]),
    ):
        page = signed_in(owner(trained)).get(path).content.decode()
        assert base.listing.slug in page[page.index('id="quality"' if 'id="quality"' in page else "<main") :], path


def test_who_is_no_maintainer_starts_nothing(adapter: Version) -> None:
    member = making.join(adapter.listing.publisher, "member")

    with pytest.raises(NotAllowed):
        evaluations.start(member, adapter, suites=["answer"])
    with pytest.raises(NotFound):
        evaluations.start(making.make_user(), adapter, suites=["answer"])
    assert not Job.objects.exists()


@pytest.mark.parametrize(
    ("chosen", "error", "param"),
    [
        ({"suites": []}, InvalidSetting, "suites"),
        ({"suites": ["telepathy"]}, InvalidSetting, "suites"),
        ({"suites": ["answer"], "limit": 0}, InvalidSetting, "limit"),
        ({"suites": ["answer"], "limit": 5000}, InvalidSetting, "limit"),
    ],
)
def test_what_can_not_be_measured_is_refused_at_its_field(
    adapter: Version, chosen: dict[str, Any], error: type[Exception], param: str
) -> None:
    with pytest.raises(error) as refused:
        evaluations.start(owner(adapter), adapter, **chosen)

    assert refused.value.param == param  # type: ignore[attr-defined]
    assert not Job.objects.exists()


def test_a_file_of_another_publisher_or_kind_is_refused(adapter: Version) -> None:
    theirs = put(making.make_adapter(making.make_base()), b'{"text": "x"}')
    table = put(adapter, b"prompt,completion", name="mine.csv")

    with pytest.raises(NotFound):
        evaluations.start(owner(adapter), adapter, suites=[], file=theirs)
    with pytest.raises(FileRejected):
        evaluations.start(owner(adapter), adapter, suites=[], file=table)


def test_a_version_is_measured_once_at_a_time(adapter: Version) -> None:
    first = evaluations.start(owner(adapter), adapter, suites=["answer"])

    with pytest.raises(EvaluationUnderWay):
        evaluations.start(owner(adapter), adapter, suites=["code"])
    finish(first, result_of(adapter))
    evaluations.start(owner(adapter), adapter, suites=["code"])

    assert Job.objects.count() == 2


def test_what_builds_on_anothers_priced_base_is_measured_for_nothing_but_only_so_often_a_day(adapter: Version, settings: Any) -> None:
    settings.EVALUATIONS_OF_PRICED_PER_DAY = 2
    base, free = adapter.base, making.make_adapter(making.make_base(), making.make_listing(adapter.listing.publisher))
    assert base is not None
    set_prices(owner(base), base.listing, input_price_micro=1_000, output_price_micro=2_000)
    begun = [finish(evaluations.start(owner(adapter), again(adapter), suites=["answer"]), result_of(adapter)) for _ in range(2)]

    with pytest.raises(EvaluationsUsedUp, match="at most 2 such evaluations a day"):
        evaluations.start(owner(adapter), again(adapter), suites=["answer"])

    assert Job.objects.count() == 2
    assert [job.params["priced"] for job in begun] == [True, True]
    assert not Reservation.objects.exists()
    assert "priced" not in evaluations.start(owner(free), free, suites=["answer"]).params
    with time_machine.travel(timezone.now() + timedelta(days=1, minutes=1)):
        assert evaluations.start(owner(adapter), again(adapter), suites=["answer"]).state == Job.State.QUEUED


def test_who_belongs_to_the_publisher_of_a_priced_base_measures_as_often_as_they_like(settings: Any) -> None:
    settings.EVALUATIONS_OF_PRICED_PER_DAY = 0
    base = making.make_base()
    set_prices(owner(base), base.listing, input_price_micro=1_000, output_price_micro=2_000)

    assert evaluations.start(owner(base), again(base), suites=["answer"]).state == Job.State.QUEUED


def again(version: Version) -> Version:
    """As it stands in the database now."""
    return Version.objects.select_related("listing__publisher").get(pk=version.pk)


def test_what_was_taken_down_is_not_measured(adapter: Version) -> None:
    assert adapter.base is not None
    Version.objects.filter(pk=adapter.base.pk).update(state="suspended")

    with pytest.raises(NotEvaluable):
        evaluations.start(owner(adapter), adapter, suites=["answer"])


def test_the_numbers_are_kept_on_the_version_and_on_its_base(adapter: Version) -> None:
    job = finish(evaluations.start(owner(adapter), adapter, suites=["answer"]), result_of(adapter))

    f1 = adapter.measurements.get(name="answer.f1")
    assert (f1.value, f1.low, f1.high, f1.base_value) == (30.0, 29.0, 31.0, 20.0)
    assert (f1.difference, f1.difference_low, f1.difference_high, f1.made_by) == (10.0, 8.0, 12.0, job.public_id)
    assert f1.method == METHOD | {
        **{"base": job.params["base"], "adapter": "a" * 64, "instructions_sha256": ""},
        **{"record": "7" * 64, "suite": "answer", "suite_sha256": "5" * 64, "items": 20},
    }
    assert adapter.base is not None
    of_base = adapter.base.measurements.get(name="answer.f1")
    assert (of_base.value, of_base.difference, of_base.method["adapter"], of_base.method["record"]) == (20.0, None, None, "8" * 64)
    assert Measurement.objects.count() == 4
    assert Notification.objects.get(kind="job_succeeded").params == {"subject": adapter.full_name}


def test_a_base_that_is_known_is_not_written_again_and_its_record_is_sent_along(adapter: Version) -> None:
    assert adapter.base is not None
    finish(evaluations.start(owner(adapter), adapter, suites=["answer"]), result_of(adapter))
    before = list(adapter.base.measurements.order_by("pk").values())

    again = evaluations.start(owner(adapter), adapter, suites=["answer"])
    finish(again, result_of(adapter, beside_record="9" * 64))

    assert again.params["records"] == ["8" * 64]
    assert list(adapter.base.measurements.order_by("pk").values()) == before


def test_a_base_measured_by_another_engine_is_written_anew(adapter: Version) -> None:
    assert adapter.base is not None
    finish(evaluations.start(owner(adapter), adapter, suites=["answer"]), result_of(adapter))
    other = METHOD | {"engine": ENGINE | {"source_sha256": "f" * 64}}

    finish(evaluations.start(owner(adapter), adapter, suites=["answer"]), result_of(adapter, method=other))

    assert adapter.base.measurements.get(name="answer.f1").method["engine"]["source_sha256"] == "f" * 64


def test_numbers_of_a_run_with_a_limit_stay_with_the_job(adapter: Version) -> None:
    job = finish(evaluations.start(owner(adapter), adapter, suites=["answer"], limit=3), result_of(adapter))

    assert job.state == Job.State.SUCCEEDED
    assert not Measurement.objects.exists()


def test_a_draft_that_was_edited_meanwhile_keeps_nothing_and_loses_what_it_had() -> None:
    prompt = making.draft_prompt(making.make_base())
    finish(evaluations.start(owner(prompt), prompt, suites=["answer"]), result_of(prompt))
    assert prompt.measurements.count() == 2
    job = evaluations.start(owner(prompt), prompt, suites=["answer"])

    versions.edit_version(owner(prompt), prompt, instructions="Answer in two sentences.")
    finish(job, result_of(prompt))

    assert not prompt.measurements.exists()


def test_other_edits_of_a_draft_leave_its_numbers() -> None:
    prompt = making.draft_prompt(making.make_base())
    finish(evaluations.start(owner(prompt), prompt, suites=["answer"]), result_of(prompt))

    versions.edit_version(owner(prompt), prompt, change_log="Better.")

    assert prompt.measurements.count() == 2


def test_a_publishers_own_suite_is_kept_by_its_digest_on_the_version_alone(adapter: Version) -> None:
    job = evaluations.start(owner(adapter), adapter, suites=[], file=put(adapter, b'{"prompt": "a", "expected": "b"}'))

    finish(job, result_of(adapter, suite="own"))

    assert sorted(adapter.measurements.values_list("name", flat=True)) == ["own-55555555.exact_match", "own-55555555.f1"]
    assert adapter.base is not None
    assert not adapter.base.measurements.exists()
    assert evaluations.start(owner(adapter), adapter, suites=[], file=UploadedFile.objects.get()).params["records"] == ["8" * 64]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda result: result["results"][0].update(suite="invented"),
        lambda result: result["results"][0]["metrics"][0].update(value=None),
        lambda result: result["results"][0]["metrics"][0].update(value="30"),
        lambda result: result["results"][0]["metrics"][0].update(name="invented"),
        lambda result: result.update(results="no list"),
    ],
)
def test_what_a_worker_says_that_is_no_measured_number_is_not_kept(adapter: Version, spoil: Any) -> None:
    result = copy.deepcopy(result_of(adapter))
    spoil(result)

    job = finish(evaluations.start(owner(adapter), adapter, suites=["answer"]), result)

    assert job.state == Job.State.SUCCEEDED
    assert not adapter.measurements.filter(name="answer.f1").exists()


def test_a_failure_is_told_and_keeps_nothing(adapter: Version) -> None:
    job = evaluations.start(owner(adapter), adapter, suites=["answer"])
    claims.claim(claim_of(job))

    claims.failed(outcome_of(job, error="Wrong.", code="suite_invalid"))

    assert fresh(job).state == Job.State.FAILED
    assert Notification.objects.get().kind == "job_failed"
    assert not Measurement.objects.exists()


def test_numbers_are_named_and_stand_in_the_order_of_the_suites(adapter: Version) -> None:
    for name in ("bias.stereotype", "own-12345678.f1", "answer.exact_match", "speed.tokens_per_s", "answer.f1", "perplexity"):
        Measurement.objects.create(version=adapter, name=name, value=1.0)
    kept = adapter.measurements.all()

    assert [m.name for m in in_order(kept)] == [
        *("perplexity", "answer.f1", "answer.exact_match", "bias.stereotype", "speed.tokens_per_s", "own-12345678.f1")
    ]
    assert [m.name for m in headlines(kept)] == ["perplexity", "answer.f1", "bias.stereotype"]
    assert [label_of(name) for name in ("perplexity", "answer.f1", "own-12345678.f1")] == ["Perplexity", "Answer questions: F1", "F1"]


# ---------------------------------------------------------------- with a real worker's child process


class TheStore:
    """What a worker tells the store, said to it at once; `on_segment` may do something to the worker meanwhile."""

    def __init__(self, on_segment: Any = lambda: None) -> None:
        self.on_segment = on_segment

    def claim(self, claim: Claim) -> Verdict:
        return claims.claim(claim)

    def heartbeat(self, claim: Claim) -> Verdict:
        return claims.heartbeat(claim)

    def segment(self, segment: Segment) -> Verdict:
        verdict = claims.segment(segment)
        self.on_segment()
        return verdict

    def finished(self, outcome: Outcome) -> None:
        claims.finished(outcome)

    def failed(self, outcome: Outcome) -> None:
        claims.failed(outcome)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def run(job: Job, place: worker.Place, store: TheStore | None = None) -> Job:
    worker.run(sending.task_of(fresh(job)), store or TheStore(), place=place)
    return fresh(job)


def test_a_killed_evaluation_goes_on_where_it_was_and_gives_the_numbers_of_one_that_was_not(tmp_path: Path) -> None:
    folder = tiny_base(tmp_path / "base")
    publisher = making.make_publisher()
    user = making.owner_of(publisher)
    listing = making.make_listing(publisher, allow_finetune=True)
    weights = making.make_artifact(**files_of(folder))
    base = making.release(publishing.create_weights_version(user, listing, number="1.0.0", artifact=weights, facts=making.FACTS))
    learned = making.make_artifact(**files_of(tiny_adapter(tmp_path / "adapter", folder)))
    own = making.make_listing(publisher)
    version = publishing.create_adapter_version(user, own, number="1.0.0", base=base, artifact=learned)
    place = worker.Place(
        "here",
        settings.ARTIFACT_URL,
        tmp_path / "cache",
        lambda job, event: None,
        heartbeat_every_s=0.2,
        work=lambda: worker.Child(worker.Share(nice=0)),  # what else the machine does shall not starve it
    )
    suites = ["knowledge", "json"]

    undisturbed = run(evaluations.start(user, version, suites=suites), place)
    numbers = {m.name: (m.value, m.low, m.high, m.base_value, m.difference) for m in version.measurements.all()}
    Measurement.objects.all().delete()
    job = evaluations.start(user, version, suites=suites)
    killed = run(job, place, TheStore(on_segment=lambda: [os.kill(pid, signal.SIGKILL) for pid in children()]))
    Job.objects.filter(pk=job.pk).update(not_before=None)
    done = run(job, place)

    assert undisturbed.state == done.state == Job.State.SUCCEEDED, done.error
    assert (killed.state, killed.attempt, killed.segment) == (Job.State.QUEUED, 2, 1)
    measured = [(event["suite"], event["of"]) for segment in done.segments.all() for event in segment.events]
    assert measured == [("knowledge", "beside"), ("knowledge", "own"), ("json", "beside")]
    assert done.result["results"] == undisturbed.result["results"]
    assert done.result["record"] == undisturbed.result["record"]
    assert {m.name: (m.value, m.low, m.high, m.base_value, m.difference) for m in version.measurements.all()} == numbers
    assert sorted(numbers) == ["json.json_keys", "json.json_valid", "knowledge.acc", "knowledge.acc_norm"]
    assert base.measurements.get(name="knowledge.acc").value == numbers["knowledge.acc"][3]
