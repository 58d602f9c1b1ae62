"""An evaluation as a job: the same numbers again, nothing finished done twice, the base's numbers taken from its record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from inference import evaluating
from inference.evaluating import RECORD, Held
from inference.job_process import Cancelled, JobError, Paused
from inference.measuring import Measuring, Subject
from inference.protocol import JobTask
from inference.suites import Suite
from tests.inference.job_bench import Place, Told
from tests.inference.tiny import tiny_adapter, tiny_base

SUITES = ["answer", "knowledge", "json"]
BASE = {"adapter": None, "instructions": ""}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    torch.set_num_threads(1)
    return Place(tmp_path)


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """(suite, whether with an adapter) of each measurement that is really made."""
    made: list[tuple[str, bool]] = []
    measure = Measuring.run

    def noted(self: Measuring, suite: Suite, subject: Subject) -> Any:
        made.append((suite.name, subject.adapter is not None))
        return measure(self, suite, subject)

    monkeypatch.setattr(Measuring, "run", noted)
    return made


def task(place: Place, **changes: Any) -> JobTask:
    of_task = {name: changes.pop(name) for name in ("attempt", "checkpoint", "segment") if name in changes}
    params = {"base": place.base, **BASE, "beside": None, "suites": SUITES, "file": None, "limit": 4, "records": []} | changes
    return JobTask(**{"job": "job_a", "attempt": 1, "kind": "evaluation", "params": params, **of_task})


def adapted(place: Place, **changes: Any) -> JobTask:
    adapter = place.artifacts.put_folder(tiny_adapter(place.folder / "adapter", place.folder / "base")).digest
    return task(place, adapter=adapter, beside=BASE, **changes)


def run(place: Place, job: JobTask, told: Told | None = None) -> dict[str, Any]:
    return evaluating.run(job, place.bench(told or Told()))


def numbers(result: dict[str, Any]) -> Any:
    return [result["results"], result["beside_results"], result["record"], result["beside_record"], result["method"]]


def test_a_version_is_measured_beside_its_base_with_intervals_and_what_it_takes_to_do_it_again(place: Place) -> None:
    told = Told()

    result = run(place, adapted(place), told)

    assert [row["suite"] for row in result["results"]] == SUITES
    (f1, exact) = result["results"][0]["metrics"]
    assert (f1["name"], exact["name"], f1["items"]) == ("f1", "exact_match", 4)
    assert f1["difference"] == pytest.approx(f1["value"] - f1["base_value"])
    assert f1["difference_low"] <= f1["difference"] <= f1["difference_high"]
    assert result["beside_results"][0]["metrics"][0]["value"] == f1["base_value"]
    assert result["method"]["base"] == place.base
    assert len(result["method"]["engine"]["source_sha256"]) == 64
    assert (result["method"]["seed"], result["method"]["precision"], result["method"]["limit"]) == (1, "float32", 4)
    assert [(event["suite"], event["of"]) for event in told.events] == [(s, of) for s in SUITES for of in ("beside", "own")][:-1]
    assert {said["stage"] for said in told.said} >= {"loading", "measuring"}


def test_weights_are_measured_beside_those_they_were_trained_from_one_model_at_a_time(
    place: Place, done: list[tuple[str, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    load = Held._load

    def noted(self: Held, folder: Path) -> Any:
        loaded.append(folder.name)
        return load(self, folder)

    monkeypatch.setattr(Held, "_load", noted)
    trained = place.artifacts.put_folder(tiny_base(place.folder / "trained", seed=7)).digest
    alone = {digest: run(place, task(place, base=digest)) for digest in (trained, place.base)}
    for noted_before in (done, loaded):
        noted_before.clear()
    told = Told()

    result = run(place, task(place, base=trained, beside={"base": place.base, **BASE}), told)

    f1 = result["results"][0]["metrics"][0]
    assert loaded == [trained, place.base]
    assert [(event["suite"], event["of"]) for event in told.events] == [(suite, of) for of in ("own", "beside") for suite in SUITES][:-1]
    assert (f1["value"], f1["base_value"]) == tuple(alone[digest]["results"][0]["metrics"][0]["value"] for digest in alone)
    assert f1["difference"] == pytest.approx(f1["value"] - f1["base_value"])
    assert result["record"] == alone[trained]["record"]
    assert result["beside_record"] == alone[place.base]["record"]
    assert (result["method"]["base"], result["beside"]["base"]) == (trained, place.base)

    loaded.clear()
    again = run(place, task(place, base=trained, beside={"base": place.base, **BASE}, records=[result["beside_record"]]))
    assert (loaded, numbers(again)) == ([trained], numbers(result))


def test_a_comparison_of_two_models_goes_on_where_it_was(place: Place, done: list[tuple[str, bool]]) -> None:
    trained = place.artifacts.put_folder(tiny_base(place.folder / "trained", seed=7)).digest
    beside = {"base": place.base, **BASE}
    whole = run(place, task(place, base=trained, beside=beside))
    done.clear()
    told = Told(pause_at=4)
    with pytest.raises(Paused):
        run(place, task(place, base=trained, beside=beside), told)

    again = run(place, task(place, base=trained, beside=beside, checkpoint=told.segments[-1]["checkpoint"], segment=4, attempt=2))

    assert [suite for suite, _adapter in done] == [*SUITES, *SUITES]
    assert numbers(again) == numbers(whole)


def test_two_runs_give_equal_numbers(place: Place) -> None:
    job = adapted(place)

    first, second = run(place, job), run(place, job)

    assert numbers(first) == numbers(second)


def test_what_was_finished_before_a_kill_is_not_done_again_and_the_numbers_are_the_same(place: Place, done: list[tuple[str, bool]]) -> None:
    job = adapted(place)
    undisturbed = numbers(run(place, job))
    done.clear()
    told = Told(pause_at=3)

    with pytest.raises(Paused):
        run(place, job, told)
    before = list(done)
    again = adapted(place, attempt=2, checkpoint=told.segments[-1]["checkpoint"], segment=3)
    result = run(place, again)

    assert before == [("answer", False), ("answer", True), ("knowledge", False)]
    assert done[3:] == [("knowledge", True), ("json", False), ("json", True)]
    assert numbers(result) == undisturbed


def test_a_checkpoint_of_another_engine_is_begun_anew(place: Place, done: list[tuple[str, bool]], monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(pause_at=1)
    with pytest.raises(Paused):
        run(place, task(place), told)
    monkeypatch.setattr(evaluating, "engine_source", lambda: "f" * 64)
    done.clear()

    run(place, task(place, attempt=2, checkpoint=told.segments[-1]["checkpoint"], segment=1))

    assert done == [(suite, False) for suite in SUITES]


def test_the_checkpoint_of_another_job_is_refused(place: Place) -> None:
    told = Told(pause_at=1)
    with pytest.raises(Paused):
        run(place, task(place), told)
    other = task(place, checkpoint=told.segments[-1]["checkpoint"], segment=1)

    with pytest.raises(JobError, match="another job"):
        run(place, JobTask(**{**other.to_json(), "job": "job_b"}))


def test_a_superseded_checkpoint_is_removed(place: Place) -> None:
    told = Told()

    run(place, task(place), told)

    assert [place.artifacts.has(segment["checkpoint"]) for segment in told.segments] == [False, True]


def test_the_base_is_measured_once_for_all_its_versions(place: Place, done: list[tuple[str, bool]]) -> None:
    of_base = run(place, task(place, suites=["answer"]))
    done.clear()

    result = run(place, adapted(place, records=["0" * 64, of_base["record"]]))

    assert ("answer", False) not in done
    assert done.count(("knowledge", False)) == 1
    assert result["results"][0]["metrics"][0]["base_value"] == of_base["results"][0]["metrics"][0]["value"]


def test_a_record_of_fewer_items_or_of_another_model_is_not_taken(place: Place, done: list[tuple[str, bool]]) -> None:
    fewer = run(place, task(place, suites=["answer"], limit=3))["record"]
    other = run(place, adapted(place, suites=["answer"]))["record"]
    done.clear()

    run(place, adapted(place, suites=["answer"], records=[fewer, other]))

    assert done == [("answer", False), ("answer", True)]


def test_instructions_are_put_to_what_asks_for_answers_alone(place: Place) -> None:
    result = run(place, task(place, instructions="Say nothing.", beside=BASE))

    assert [row["suite"] for row in result["results"]] == ["answer", "json"]
    assert len(result["method"]["instructions_sha256"]) == 64
    with pytest.raises(JobError) as refused:
        run(place, task(place, instructions="Say nothing.", suites=["knowledge"]))
    assert refused.value.code == "nothing_to_measure"


def test_a_publishers_own_suite_is_measured_too(place: Place) -> None:
    file = place.put_data([json.dumps({"prompt": f"Where is {city}?", "expected": "There"}).encode() for city in ("Oslo", "Rome")])

    result = run(place, task(place, suites=[], file=file))

    (row,) = result["results"]
    assert (row["suite"], row["items"], [metric["name"] for metric in row["metrics"]]) == (
        "own",
        2,
        ["f1", "exact_match", "rouge_l", "chrf"],
    )
    assert row["samples"][0]["prompt"] == "Where is Oslo?"
    record = json.loads((place.artifacts.materialise(result["record"], place.cache) / RECORD).read_text())
    assert record["suites"]["own"]["sha256"] == row["sha256"]
    assert len(record["suites"]["own"]["rows"]["f1"]) == 2


def test_a_wrong_suite_ends_the_job_with_every_line_that_is_wrong(place: Place) -> None:
    file = place.put_data([b'{"prompt": "Hi", "expected": "x"}', b"{oops", b'{"prompt": "Hi"}'])

    with pytest.raises(JobError) as refused:
        run(place, task(place, file=file))

    assert refused.value.code == "suite_invalid"
    assert [problem["line"] for problem in refused.value.detail["problems"]] == [2, 3]
    assert refused.value.detail["error_count"] == 2


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"suites": ["telepathy"]}, "suite_unknown"), ({"suites": []}, "nothing_to_measure")],
)
def test_what_cannot_be_measured_is_said(place: Place, changes: dict[str, Any], code: str) -> None:
    with pytest.raises(JobError) as refused:
        run(place, task(place, **changes))

    assert refused.value.code == code


def test_an_item_beyond_the_context_names_its_suite(place: Place) -> None:
    file = place.put_data([json.dumps({"prompt": "Hello! " * 3000, "expected": "x"}).encode()])

    with pytest.raises(JobError) as refused:
        run(place, task(place, suites=[], file=file))

    assert (refused.value.code, refused.value.detail["suite"]) == ("suite_unusable", "own")


def test_a_cancelled_evaluation_stops_in_the_middle_of_a_suite(place: Place) -> None:
    class Impatient(Told):
        def progress(self, stage: str, *, done: float | None = None, **facts: Any) -> None:
            super().progress(stage, done=done, **facts)
            self.cancelled = stage == "measuring"

    told = Impatient()

    with pytest.raises(Cancelled):
        run(place, task(place), told)
    assert told.segments == []
