"""The worker's side of a job with a real child process: claiming, resuming after a kill, pausing, cancelling, losing the claim."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from inference import job_kinds, job_process, jobs
from inference.importing import check_folder
from inference.job_process import Order
from inference.jobs import StoreUnreachable
from inference.protocol import Claim, JobTask, Outcome, Segment, Verdict
from inference.worker import Worker, WorkerSettings, app
from tests.inference.job_bench import Place, Told, chat_line
from tests.stack import wait_until


class OneJobStore:
    """The store's side as far as a worker sees it: one job, whose pointer moves only for the claim that holds it."""

    def __init__(self) -> None:
        self.claimed: Claim | None = None
        self.segments: list[Segment] = []
        self.outcomes: list[Outcome] = []
        self.succeeded = False
        self.wish = Verdict.GO_ON
        self.on_segment: Callable[[Segment], Verdict] = lambda segment: self.wish

    def claim(self, claim: Claim) -> Verdict:
        if self.claimed is not None and self.claimed.attempt >= claim.attempt:
            return Verdict.LOST
        self.claimed = claim
        return Verdict.GO_ON

    def heartbeat(self, claim: Claim) -> Verdict:
        return self.wish

    def segment(self, segment: Segment) -> Verdict:
        verdict = self.on_segment(segment)
        if verdict is not Verdict.LOST:
            self.segments.append(segment)
        return verdict

    def finished(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self.succeeded = True

    def failed(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("jobs"))


def at(place: Place, **fields: Any) -> jobs.Place:
    said: list[Mapping[str, Any]] = []
    options = {"segment_s": 0.0, "heartbeat_every_s": 0.2, "retry_first_s": 0.01, "work": lambda: jobs.Child(jobs.Share(nice=0))} | fields
    return jobs.Place(worker="here", artifacts=place.url, cache=place.cache, progress=lambda job, event: said.append(event), **options)


@pytest.fixture(scope="module")
def undisturbed(place: Place) -> bytes:
    """The adapter of a run that nothing happened to, in a child process of its own."""
    store = OneJobStore()
    jobs.run(place.finetune(), store, place=at(place, segment_s=60.0))
    return place.learned_bytes(store.outcomes[0].result["manifest"])


def children() -> list[int]:
    """The job processes that run now; one that was just started may have no name yet."""
    return [child.pid for child in psutil.Process().children() if "inference.job_process" in _command_of(child)]


def _command_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:  # it ended meanwhile
        return []


def test_a_run_killed_in_mid_flight_resumes_to_the_same_bits(place: Place, undisturbed: bytes) -> None:
    store = OneJobStore()

    def kill_after_three(segment: Segment) -> Verdict:
        if segment.number == 3:
            for pid in children():
                os.kill(pid, signal.SIGKILL)
        return Verdict.GO_ON

    store.on_segment = kill_after_three
    jobs.run(place.finetune(job="job_killed"), store, place=at(place))
    died = store.outcomes.pop()
    store.on_segment = lambda segment: Verdict.GO_ON
    last = store.segments[-1]
    again = place.finetune(job="job_killed", checkpoint=last.checkpoint, segment=last.number + 1)
    jobs.run(replace(again, attempt=2), store, place=at(place))

    assert (died.code, died.retriable, died.detail) == ("process_died", True, {"status": -9})
    assert [segment.number for segment in store.segments] == list(range(8))
    assert [event["step"] for segment in store.segments for event in segment.events] == list(range(9))
    assert place.learned_bytes(store.outcomes[0].result["manifest"]) == undisturbed


def test_a_run_of_all_weights_that_is_killed_ends_with_the_same_model_and_what_the_store_keeps_of_it(place: Place) -> None:
    changes = {"scope": "weights", "learning_rate": 2e-3}
    whole, store = OneJobStore(), OneJobStore()
    jobs.run(place.finetune(job="job_whole", changes=changes), whole, place=at(place, segment_s=60.0))

    def kill_after_three(segment: Segment) -> Verdict:
        if segment.number == 3:
            for pid in children():
                os.kill(pid, signal.SIGKILL)
        return Verdict.GO_ON

    store.on_segment = kill_after_three
    jobs.run(place.finetune(job="job_killed_whole", changes=changes), store, place=at(place))
    died = store.outcomes.pop()
    store.on_segment = lambda segment: Verdict.GO_ON
    last = store.segments[-1]
    again = place.finetune(job="job_killed_whole", changes=changes, checkpoint=last.checkpoint, segment=last.number + 1)
    jobs.run(replace(again, attempt=2), store, place=at(place))

    result = store.outcomes[0].result
    assert (died.code, store.outcomes[0].code) == ("process_died", "")
    assert place.learned_bytes(result["manifest"]) == place.learned_bytes(whole.outcomes[0].result["manifest"])
    folder = place.artifacts.materialise(result["manifest"], place.cache)
    assert result["facts"] == check_folder(folder)  # as of an import
    assert result["facts"]["parameter_count"] == result["trained_parameters"]


def test_a_model_from_nothing_is_made_in_a_child_process_and_goes_on_after_a_kill_to_the_same_bits(place: Place) -> None:
    texts = "\n\n".join(f"Once there was a fox who had {n} friends, and they were happy." for n in range(60))
    file = place.folder / "corpus.txt"
    file.write_text(texts, encoding="utf-8")
    shape = {"layers": 2, "hidden": 32, "heads": 2, "vocabulary": 300, "context": 64}
    params = {
        "file": place.artifacts.put_file(file).sha256,
        "name": file.name,
        "shape": shape,
        "settings": {"epochs": 2, "batch_size": 8, "validation_share": 0.1, "method": "text", "scope": "weights", "max_length": 64},
        "prompts": ["Once there"],
    }
    whole, store = OneJobStore(), OneJobStore()
    task = replace(place.finetune(job="job_nothing"), kind="pretraining", params=params)
    jobs.run(task, whole, place=at(place, segment_s=60.0))

    def kill_after_two(segment: Segment) -> Verdict:
        if segment.number == 2:
            for pid in children():
                os.kill(pid, signal.SIGKILL)
        return Verdict.GO_ON

    store.on_segment = kill_after_two
    task = replace(task, job="job_nothing_killed")
    jobs.run(task, store, place=at(place))
    died = store.outcomes.pop()
    store.on_segment = lambda segment: Verdict.GO_ON
    last = store.segments[-1]
    jobs.run(replace(task, attempt=2, checkpoint=last.checkpoint, segment=last.number + 1), store, place=at(place))

    result = store.outcomes[0].result
    assert (died.code, store.outcomes[0].code) == ("process_died", "")
    assert place.learned_bytes(result["manifest"]) == place.learned_bytes(whole.outcomes[0].result["manifest"])
    assert result["facts"] == check_folder(place.artifacts.materialise(result["manifest"], place.cache))
    events = [event for segment in store.segments for event in segment.events]
    assert events[0]["prompts"] == ["Once there"]
    assert all(len(event["samples"]) == 1 for event in events if "samples" in event)


def test_a_second_delivery_does_nothing(place: Place) -> None:
    store = OneJobStore()
    store.claimed = Claim(job="job_a", attempt=1, claim="another", worker="there")

    jobs.run(place.finetune(), store, place=at(place))

    assert (store.segments, store.outcomes) == ([], [])


def test_a_pause_takes_effect_after_the_segment_under_way(place: Place) -> None:
    store = OneJobStore()
    store.wish = Verdict.PAUSE

    jobs.run(place.finetune(job="job_paused"), store, place=at(place, segment_s=60.0))

    assert len(store.segments) == 1
    assert [outcome.code for outcome in store.outcomes] == ["paused"]


def test_a_cancelled_job_ends_without_a_result(place: Place) -> None:
    store = OneJobStore()
    store.on_segment = lambda segment: Verdict.CANCEL

    jobs.run(place.finetune(job="job_cancelled"), store, place=at(place))

    assert [outcome.code for outcome in store.outcomes] == ["cancelled"]
    assert store.outcomes[0].result == {}


def test_a_job_computes_with_as_many_threads_as_it_may_and_gives_way_to_other_sessions_too(place: Place) -> None:
    store = OneJobStore()
    found: dict[str, Any] = {}

    def look(segment: Segment) -> Verdict:
        (pid,) = children()
        said = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        found["threads"] = {line for line in said if line.startswith((b"OMP_NUM", b"MKL_NUM"))}
        found["nice"] = os.getpriority(os.PRIO_PROCESS, pid)
        found["session"] = os.getsid(pid) == pid
        group = Path(f"/proc/{pid}/autogroup")
        found["of the session"] = int(group.read_text().split()[-1]) if group.exists() else found["nice"]
        return Verdict.CANCEL

    store.on_segment = look
    jobs.run(place.finetune(job="job_polite"), store, place=at(place, work=lambda: jobs.Child(jobs.Share(threads=2, nice=7))))

    nice = min(os.getpriority(os.PRIO_PROCESS, 0) + 7, 19)
    assert found == {"threads": {b"OMP_NUM_THREADS=2", b"MKL_NUM_THREADS=2"}, "nice": nice, "session": True, "of the session": nice}


def test_a_worker_has_jobs_give_way_unless_it_is_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = WorkerSettings.from_environment()
    monkeypatch.setenv("WORKER_JOB_THREADS", "6")
    monkeypatch.setenv("WORKER_JOB_NICE", "0")

    told = WorkerSettings.from_environment()

    assert (usual.job_threads, usual.job_nice) == (1, 19)
    assert (told.job_threads, told.job_nice) == (6, 0)
    assert Worker(told, app).spare.share == jobs.Share(threads=6, nice=0)


def test_a_worker_that_lost_its_claim_says_nothing_more(place: Place) -> None:
    store = OneJobStore()
    store.on_segment = lambda segment: Verdict.LOST

    jobs.run(place.finetune(job="job_lost"), store, place=at(place))

    assert (store.segments, store.outcomes) == ([], [])
    assert children() == []


def test_a_worker_that_is_asked_to_stop_leaves_the_job_at_a_checkpoint(place: Place) -> None:
    store, stopping = OneJobStore(), threading.Event()

    def stop(segment: Segment) -> Verdict:
        stopping.set()
        return Verdict.GO_ON

    store.on_segment = stop
    jobs.run(place.finetune(job="job_left", changes={"epochs": 50}), store, place=at(place, stopping=stopping))

    assert [outcome.code for outcome in store.outcomes] == ["paused"]
    assert 1 <= len(store.segments) < 100


def test_a_child_that_gives_no_sign_of_life_is_ended(place: Place) -> None:
    store = OneJobStore()

    jobs.run(place.finetune(job="job_hung"), store, place=at(place, hung_after_s=0.01))

    assert (store.outcomes[0].code, store.outcomes[0].retriable) == ("hung", True)
    assert children() == []


def test_a_child_that_only_waits_for_its_turn_on_a_busy_machine_is_left_alone(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    store = OneJobStore()
    monkeypatch.setattr(jobs.Child, "waited_s", lambda self: time.monotonic())

    jobs.run(place.finetune(job="job_patient"), store, place=at(place, hung_after_s=0.01, segment_s=60.0))

    assert store.succeeded


def test_what_a_child_waits_for_the_processor_is_counted() -> None:
    child = jobs.Child(jobs.Share())
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        for pid in (child.pid, busy.pid):
            os.sched_setaffinity(pid, {min(os.sched_getaffinity(0))})

        assert wait_until(lambda: child.waited_s() > 0.1, what="the child's wait")
    finally:
        busy.kill()
        busy.wait()
        child.kill()


def test_the_outcome_is_told_again_while_the_store_is_away(place: Place) -> None:
    store = OneJobStore()
    refusals = [StoreUnreachable("away"), StoreUnreachable("away")]
    told = store.finished

    def finished(outcome: Outcome) -> None:
        if refusals:
            raise refusals.pop()
        told(outcome)

    store.finished = finished  # type: ignore[method-assign]
    validation = JobTask(
        job="job_v", attempt=1, kind="validation", params={"file": place.data, "base": place.base, "adapter": None, "max_length": 64}
    )
    jobs.run(validation, store, place=at(place))

    report = store.outcomes[0].result
    assert (report["valid"], report["examples"], report["error_count"]) == (True, 10, 0)
    assert {run["trained"] for run in report["preview"][0]} == {True, False}


def test_validation_names_the_line_and_column_of_what_is_wrong(place: Place) -> None:
    bad = place.put_data(
        [chat_line("Hello?", "Hello."), b'{"messages": [{"role": "user", "content": "Hi"}, {"role": "robot", "content": "x"}]}']
    )
    store = OneJobStore()

    task = JobTask(job="job_v", attempt=1, kind="validation", params={"file": bad, "base": place.base, "adapter": None, "max_length": 64})
    jobs.run(task, store, place=at(place))

    report = store.outcomes[0].result
    assert (report["valid"], report["examples"]) == (False, 1)
    (problem,) = report["problems"]
    assert (problem["line"], problem["column"], problem["code"]) == (2, 50, "unknown_role")


def test_a_text_is_checked_as_the_model_that_shall_be_made_of_it_reads_it(place: Place) -> None:
    """In pieces of its context, with the tokenizer that its training makes; a line that can't be read is told with the others counted."""
    lines = [json.dumps({"text": f"Once there was a fox who had {n} friends, and they were happy."}) for n in range(60)]
    shape = {"layers": 2, "hidden": 32, "heads": 2, "vocabulary": 300, "context": 16}
    about = {"name": "tales.jsonl", "shape": shape, "use": "text", "max_length": 16, "validation_share": 0.1, "seed": 1}
    reports = []
    for texts in (lines, [*lines[:30], "{", *lines[30:], '{"text": "Write to fox@example.org."}']):
        store = OneJobStore()
        file = place.put_data(text.encode() for text in texts)
        jobs.run(JobTask(job="job_v", attempt=1, kind="validation", params={"file": file, **about}), store, place=at(place))
        reports.append(store.outcomes[0].result)

    good, bad = reports
    assert (good["valid"], good["format"], good["longest_tokens"], good["lines"]) == (True, "text", 16, 60)
    assert 60 < good["examples"] < good["tokens"] / 8
    assert good["overlap"]["held_out"] == round(0.1 * good["examples"])
    assert (bad["valid"], [(problem["line"], problem["code"]) for problem in bad["problems"]]) == (False, [(31, "not_json")])
    assert bad["examples"] > good["examples"]
    assert [(found["kind"], found["lines"]) for found in bad["findings"] if found["count"]] == [("email", [62])]


def test_a_file_that_is_missing_ends_the_job_with_its_reason(place: Place) -> None:
    store = OneJobStore()
    task = place.finetune(job="job_missing")

    jobs.run(replace(task, params={**task.params, "file": "0" * 64}), store, place=at(place))

    assert (store.outcomes[0].code, store.outcomes[0].retriable) == ("artifact_unusable", False)


def test_each_attempt_finds_a_process_ready_that_nobody_used_before(place: Place) -> None:
    spare = jobs.Spare(jobs.Share())
    spare.prepare()
    (ready,) = wait_until(children)
    stores = [OneJobStore(), OneJobStore()]

    used = []
    for store in stores:
        used += wait_until(children)
        jobs.run(place.finetune(), store, place=at(place, segment_s=60.0, work=spare.take))
        spare.prepare()

    assert used[0] == ready
    assert len({*used, *wait_until(children)}) == 3
    assert all(store.succeeded for store in stores)
    spare.take().kill()


def test_a_spare_process_that_died_is_replaced(place: Place) -> None:
    spare = jobs.Spare(jobs.Share())
    spare.prepare()
    (ready,) = wait_until(children)
    os.kill(ready, signal.SIGKILL)
    os.waitid(os.P_PID, ready, os.WEXITED | os.WNOWAIT)
    store = OneJobStore()

    jobs.run(place.finetune(), store, place=at(place, segment_s=60.0, work=spare.take))

    assert store.succeeded
    spare.take().kill()


def test_a_spare_process_ends_with_whoever_started_it() -> None:
    child = jobs.Child(jobs.Share())

    child._input.close()

    assert child.wait() == 0


def test_a_result_with_a_number_that_is_none_ends_the_attempt_with_an_error(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_kinds, "run", lambda *_arguments, **_named: {"loss": float("nan")})
    order = Order(place.finetune().to_json(), artifacts=place.url, cache=str(place.cache), parent=os.getpid())

    event = job_process.work(order, Told())  # type: ignore[arg-type]

    assert (event["type"], event["code"], event["retriable"]) == ("error", "internal", True)
