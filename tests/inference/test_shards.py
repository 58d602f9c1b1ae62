"""Shards of batches on the engines of a worker: every request is answered once, whatever is killed, and nobody waits for them."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from inference import jobs
from inference.artifacts import ArtifactStore
from inference.delivery import Delivery, connect
from inference.engines import EngineHouse, Engines
from inference.precision import Precision
from inference.protocol import Claim, GenerationRequest, JobKind, JobTask, Outcome, Priority, Segment, Verdict, stream_key
from inference.shards import Shard, Shards, joined
from tests.inference.serving import Reader, a_request, wait_until
from tests.inference.tiny import tiny_base


@dataclass
class Store:
    """The store as a worker sees it: it records segments, and says what it was told to say."""

    verdict: Verdict = Verdict.GO_ON
    segments: list[Segment] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    before_recording: Callable[[Segment], None] = lambda segment: None

    def claim(self, claim: Claim) -> Verdict:
        return Verdict.GO_ON

    def heartbeat(self, claim: Claim) -> Verdict:
        return self.verdict

    def segment(self, segment: Segment) -> Verdict:
        self.before_recording(segment)
        self.segments.append(segment)
        return self.verdict

    def finished(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)

    def failed(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)

    @property
    def counts(self) -> dict[str, int]:
        events = [event for segment in self.segments for event in segment.events]
        return {name: sum(event[name] for event in events) for name in events[0]} if events else {}


class Watched(Engines):
    """Engines that remember what they were asked."""

    asked: list[GenerationRequest]

    def submit(self, request: GenerationRequest) -> None:
        self.asked = [*getattr(self, "asked", []), request]
        super().submit(request)


@dataclass
class Bench:
    folder: Path
    engines: Watched
    delivery: Delivery
    sent: list[dict[str, Any]]
    reader: Reader
    base: str

    @property
    def artifacts(self) -> ArtifactStore:
        return ArtifactStore((self.folder / "artifacts").as_uri())

    def given(self) -> set[str]:
        """What the base's engine has in hand, by request id."""
        engine = self.engines._engines.get(self.base)
        return set(engine.given) if engine is not None else set()

    def task(self, requests: list[GenerationRequest], **fields: Any) -> JobTask:
        lines = [{"number": number, "request": request.to_json()} for number, request in enumerate(requests, start=1)]
        lines.append({"number": len(requests) + 1, "refused": {}})
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "shard.jsonl"
            file.write_text("".join(json.dumps(line) + "\n" for line in lines))
            shard = self.artifacts.put_file(file).sha256
        return JobTask(**{"job": "job_shard", "attempt": 1, "kind": JobKind.BATCH, "params": {"base": self.base, "shard": shard}} | fields)

    def run(self, task: JobTask, store: Store, *, segment_s: float = 0.0, **place: Any) -> None:
        where = jobs.Place(
            worker="worker-test",
            artifacts=(self.folder / "artifacts").as_uri(),
            cache=self.folder / "cache",
            progress=lambda job, event: None,
            segment_s=segment_s,
            heartbeat_every_s=0.2,
            work=lambda: Shard(engines=self.engines, delivery=self.delivery, valkey=self.reader.valkey),
            **place,
        )
        jobs.run(task, store, place=where)

    def running(self, task: JobTask, store: Store, **place: Any) -> threading.Thread:
        thread = threading.Thread(target=self.run, args=(task, store), kwargs=place, daemon=True)
        thread.start()
        return thread

    def answers(self, store: Store) -> dict[int, dict[str, Any]]:
        """All that the segments hold, by number; a number that is there twice fails the test."""
        found: dict[int, dict[str, Any]] = {}
        before = store.segments[-1].checkpoint if store.segments else None
        while before:
            head, *lines = (json.loads(line) for line in self.artifacts.read(before).splitlines())
            for line in lines:
                assert line["number"] not in found
                found[line["number"]] = line
            before = head["before"]
        return found


@contextmanager
def a_bench(valkey: str, tmp_path: Path, *, memory_bytes: int = 4 * 2**30) -> Iterator[Bench]:
    url = (tmp_path / "artifacts").as_uri()
    base = ArtifactStore(url).put_folder(tiny_base(tmp_path / "base", seed=1)).digest
    sent: list[dict[str, Any]] = []
    client = connect(valkey)
    delivery = Delivery(client, sent.append)
    house = EngineHouse(
        worker="worker-test",
        redis_url=valkey,
        artifacts=url,
        cache=tmp_path / "cache",
        memory_bytes=memory_bytes,
        precision=Precision("float32"),
        threads=1,
    )
    engines = Watched(house, delivery=delivery, valkey=client)
    yield Bench(tmp_path, engines, delivery, sent, Reader(valkey), base)
    engines.drain(within_s=0.0)


@pytest.fixture
def bench(valkey: str, tmp_path: Path) -> Iterator[Bench]:
    with a_bench(valkey, tmp_path) as bench:
        yield bench


def test_every_request_of_a_shard_is_answered_as_it_would_be_alone_and_the_store_hears_of_it_by_segments(bench: Bench) -> None:
    requests = [a_request(bench.base, f"Question {number}") for number in range(20)]
    alone = a_request(bench.base, "Question 3")
    bench.engines.submit(alone)
    bench.reader.last(alone)
    store = Store()

    bench.run(bench.task(requests), store)

    answers = bench.answers(store)
    assert sorted(answers) == list(range(1, 21))
    assert answers[4]["choices"][0]["text"] == bench.reader.text(alone)
    assert [outcome.error for outcome in store.outcomes] == [""]
    assert [segment.number for segment in store.segments] == list(range(len(store.segments)))
    spent = [answer["finished"]["usage"]["completion_tokens"] for answer in answers.values()]
    assert (store.counts["completed"], store.counts["failed"], store.counts["completion_tokens"]) == (20, 0, sum(spent))
    assert [event["request"] for event in bench.sent] == [alone.id]  # no report of its own for any of a shard
    assert {request.priority for request in bench.engines.asked[1:]} == {Priority.BATCH}
    assert not any(bench.reader.valkey.exists(stream_key(request.id)) for request in requests)


def test_what_was_answered_is_not_asked_again_by_the_worker_that_follows_one_that_was_lost(bench: Bench) -> None:
    requests = [a_request(bench.base, f"Question {number}", max_tokens=2 + 12 * number) for number in range(12)]
    task, lost, again = bench.task(requests), Store(), Store()

    def lose(segment: Segment) -> None:
        if segment.number:  # the first is recorded; of the second nobody hears
            lost.verdict = Verdict.LOST
            raise jobs.StoreUnreachable

    lost.before_recording = lose
    bench.run(task, lost, retry_first_s=0.0)
    wait_until(lambda: not bench.given())
    recorded = lost.segments[0]
    finished = {request.id for request in requests if _has_ended(bench, request)} | _recorded(bench, lost)
    bench.engines.asked = []

    bench.run(replace(task, attempt=2, checkpoint=recorded.checkpoint, segment=1), again)

    assert sorted(bench.answers(again)) == list(range(1, 13))
    assert 0 < len(finished) < 12
    assert {request.id for request in bench.engines.asked} == {request.id for request in requests} - finished


def _has_ended(bench: Bench, request: GenerationRequest) -> bool:
    return any(event["type"] == "finished" and event["reason"] in ("stop", "length") for event in bench.reader.events(request))


def _recorded(bench: Bench, store: Store) -> set[str]:
    return {answer["finished"]["request"] for answer in bench.answers(store).values()}


def test_an_engine_that_dies_is_asked_again_and_each_request_is_answered_once(bench: Bench) -> None:
    requests = [a_request(bench.base, f"Question {number}", max_tokens=60) for number in range(10)]
    store = Store()
    thread = bench.running(bench.task(requests), store)
    bench.reader.begun(requests[0])

    os.kill(bench.engines.pids()[bench.base], signal.SIGKILL)
    thread.join(timeout=120)

    answers = bench.answers(store)
    assert sorted(answers) == list(range(1, 11))
    assert {answer["finished"]["reason"] for answer in answers.values()} <= {"length", "stop"}
    assert store.counts["completed"] == 10


def test_a_request_that_fails_is_a_failure_of_its_own(bench: Bench) -> None:
    good = a_request(bench.base)
    too_long = a_request(bench.base, "word " * 5000)
    store = Store()

    bench.run(bench.task([good, too_long]), store)

    answers = bench.answers(store)
    assert answers[1]["finished"]["failure"] is None
    assert answers[2]["finished"]["failure"] == "context_length_exceeded"
    assert (store.counts["completed"], store.counts["failed"]) == (1, 1)


def test_a_shard_that_is_cancelled_leaves_what_was_answered_by_then(bench: Bench) -> None:
    short, long = a_request(bench.base, max_tokens=2), a_request(bench.base, max_tokens=1500)
    store = Store()
    thread = bench.running(bench.task([short, long]), store, segment_s=3600.0)
    wait_until(lambda: _has_ended(bench, short))

    store.verdict = Verdict.CANCEL
    thread.join(timeout=30)

    assert list(bench.answers(store)) == [1]
    assert [outcome.code for outcome in store.outcomes] == ["cancelled"]
    wait_until(lambda: not bench.given())


def test_who_waits_for_an_answer_goes_before_a_batch_that_fills_the_engine(bench: Bench) -> None:
    requests = [a_request(bench.base, f"Question {number}", max_tokens=400) for number in range(48)]
    store = Store()
    thread = bench.running(bench.task(requests), store, segment_s=3600.0)
    wait_until(lambda: len(bench.given()) == EngineHouse.batch_at_most)

    asked = [a_request(bench.base, f"Now {number}", max_tokens=4) for number in range(EngineHouse.held_at_most)]
    for request in asked:
        bench.engines.submit(request)
    behind = {request.id for request in asked} - bench.given() - {event["request"] for event in bench.sent}
    ended = [bench.reader.last(request)["reason"] for request in asked]

    assert behind == set()  # a batch takes none of the places of those who wait
    assert set(ended) <= {"length", "stop"}
    assert thread.is_alive()
    store.verdict = Verdict.CANCEL
    thread.join(timeout=30)


def test_a_base_that_works_for_batches_alone_makes_room_for_one_that_people_wait_for(valkey: str, tmp_path: Path) -> None:
    # Each tiny engine takes more than half of this.
    with a_bench(valkey, tmp_path, memory_bytes=600 * 2**20) as bench:
        other = bench.artifacts.put_folder(tiny_base(tmp_path / "other", seed=2)).digest
        short, long = a_request(bench.base, max_tokens=2), a_request(bench.base, max_tokens=1500)
        store = Store()
        thread = bench.running(bench.task([short, long]), store, segment_s=3600.0)
        wait_until(lambda: _has_ended(bench, short))

        asked = a_request(other)
        bench.engines.submit(asked)

        assert bench.reader.last(asked)["reason"] in ("length", "stop")
        thread.join(timeout=30)
        (outcome,) = store.outcomes
        assert (outcome.code, outcome.retriable) == ("overloaded", True)  # it goes on later
        assert list(bench.answers(store)) == [1]


def test_a_worker_takes_only_some_shards_of_a_base_and_leaves_the_rest_to_others() -> None:
    begun, go_on = [], threading.Event()

    def run(task: JobTask) -> None:
        begun.append(task.job)
        go_on.wait(timeout=30)

    shards = Shards(run, of_a_base_at_most=2)
    tasks = [JobTask(job=f"job_{n}", attempt=1, kind=JobKind.BATCH, params={"base": base}) for n, base in enumerate("aaab")]

    taken = [shards.take(task.to_json()) for task in tasks]

    assert taken == [True, True, False, True]
    assert not shards.wait_for_room("a", within_s=0.0)
    go_on.set()
    assert shards.wait_for_end(within_s=30)
    assert sorted(begun) == ["job_0", "job_1", "job_3"]


def test_the_pieces_of_each_choice_become_one() -> None:
    pieces = [
        {"type": "started"},
        {"type": "delta", "text": "a", "tokens": 1, "choice": 1},
        {"type": "delta", "text": "b", "tokens": 1, "logprobs": [{"token": "b"}]},
        {"type": "delta", "text": "c", "tokens": 2, "reason": "stop", "logprobs": [{"token": "c"}]},
        {"type": "finished"},
    ]

    first, second = joined(pieces)

    assert (first["text"], first["tokens"], first["reason"], first["logprobs"]) == ("bc", 2, "stop", [{"token": "b"}, {"token": "c"}])
    assert (second["text"], second["choice"]) == ("a", 1)
