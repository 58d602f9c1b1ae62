"""What the machine does to a job: no room on the disk, artifacts out of reach, too little memory. It ends the attempt, not the job."""

from __future__ import annotations

import io
import mmap
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from inference import job_kinds, job_process, jobs
from inference.job_process import Channel, Order
from inference.protocol import JobTask, Segment, Verdict
from tests.inference.job_bench import Place
from tests.inference.test_jobs import OneJobStore, at


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def undisturbed(place: Place) -> bytes:
    store = OneJobStore()
    jobs.run(place.finetune(job="job_u"), store, place=at(place, segment_s=60.0))
    return place.learned_bytes(store.outcomes[0].result["manifest"])


def next_attempt(task: JobTask, store: OneJobStore) -> JobTask:
    last = store.segments[-1] if store.segments else None
    return replace(task, attempt=2, **({"checkpoint": last.checkpoint, "segment": last.number + 1} if last else {}))


@contextmanager
def room_for_files_of(size_bytes: int) -> Iterator[None]:
    """A process started now cannot write a file any larger, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_without_room_ends_the_attempt_and_the_next_one_ends_with_the_same_bits(place: Place) -> None:
    bits = undisturbed(place)
    spare, store, task = jobs.Spare(jobs.Share(nice=0)), OneJobStore(), place.finetune()
    with room_for_files_of(4096):
        spare.prepare()

    jobs.run(task, store, place=at(place, work=spare.take))
    failed = store.outcomes.pop()
    jobs.run(next_attempt(task, store), store, place=at(place))

    assert failed.code in ("artifacts_unreachable", "worker_storage")
    assert failed.retriable
    assert "File too large" in failed.error
    assert not [key for key in (place.folder / "artifacts").rglob("*") if key.is_file() and key.stat().st_size == 4096]
    assert place.learned_bytes(store.outcomes[0].result["manifest"]) == bits


def test_an_artifact_store_that_goes_away_ends_the_attempt_and_the_next_one_goes_on_from_the_checkpoint(place: Place) -> None:
    bits = undisturbed(place)
    store, task = OneJobStore(), place.finetune()
    here, away = place.folder / "artifacts", place.folder / "away"

    def go_away(segment: Segment) -> Verdict:
        if segment.number == 2:
            here.rename(away)
            here.write_bytes(b"")
        return Verdict.GO_ON

    store.on_segment = go_away
    jobs.run(task, store, place=at(place))
    failed = store.outcomes.pop()
    here.unlink()
    away.rename(here)
    store.on_segment = lambda segment: Verdict.GO_ON
    jobs.run(next_attempt(task, store), store, place=at(place))

    assert (failed.code, failed.retriable) == ("artifacts_unreachable", True)
    assert [segment.number for segment in store.segments] == list(range(8))
    assert place.learned_bytes(store.outcomes[0].result["manifest"]) == bits


def test_a_base_that_does_not_fit_into_memory_is_refused_with_advice(place: Place) -> None:
    store = OneJobStore()

    jobs.run(place.finetune(), store, place=at(place, memory_bytes=1000))

    (failed,) = store.outcomes
    assert (failed.code, failed.retriable) == ("out_of_memory", False)
    assert "Choose a smaller base or fewer tokens per example." in failed.error


REFUSED = {  # more than any machine has
    "python": lambda: bytearray(1 << 60),
    "the system": lambda: mmap.mmap(-1, 1 << 60),
    "numpy": lambda: np.empty(1 << 60, dtype=np.uint8),
    "torch": lambda: torch.empty(1 << 55, dtype=torch.uint8),
}


@pytest.mark.parametrize("who", REFUSED)
def test_memory_that_is_refused_in_the_midst_of_a_job_ends_it_with_advice(monkeypatch: pytest.MonkeyPatch, who: str) -> None:
    monkeypatch.setattr(job_kinds, "run", lambda *_args, **_kwargs: REFUSED[who]())

    said = job_process.work(Order(task={}, artifacts="", cache="", parent=0), Channel(io.StringIO(), io.StringIO()))

    assert (said["type"], said["code"], said["retriable"]) == ("error", "out_of_memory", False)
    assert "Choose smaller batches, fewer tokens per example or a smaller base." in said["message"]


def test_one_bad_line_among_a_hundred_thousand_is_found_by_its_number(place: Place) -> None:
    lines = [b'{"text": "Hello."}'] * 100_000
    lines[77_776] = b'{"text": "Hello."'
    data = place.put_data(lines)
    store = OneJobStore()
    params = {"file": data, "base": place.base, "adapter": None, "use": "text", "max_length": 128}

    jobs.run(JobTask(job="job_v", attempt=1, kind="validation", params=params), store, place=at(place))

    report = store.outcomes[0].result
    assert (report["valid"], report["error_count"]) == (False, 1)
    assert [problem["line"] for problem in report["problems"] if problem["code"] != "duplicate"][:1] == [77_777]


def test_a_base_deleted_meanwhile_ends_the_job_with_its_reason(place: Place) -> None:
    store, task = OneJobStore(), place.finetune()
    (place.folder / "artifacts" / "manifests" / f"{place.base}.json").unlink()

    jobs.run(task, store, place=at(place))

    (failed,) = store.outcomes
    assert failed.code == "artifact_unusable"
    assert not failed.retriable
    assert place.base[:12] in failed.error
