"""Engine processes on a real broker: what they stream, what ends them, and what becomes of the requests they held."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from inference.artifacts import ArtifactStore
from inference.engines import Engines
from inference.precision import Precision
from inference.protocol import CANCELLED, GenerationRequest, engine_key, holders_key, lease_key, precision_key, stream_key
from inference.sampling_params import Form, Grammar, SamplingParams
from tests.inference.serving import Reader, a_request, engines_in, wait_until
from tests.inference.templates import HUGE, NESTED, for_those_who_say, with_pattern, with_template
from tests.inference.tiny import tiny_adapter, tiny_base

LONG = 1800  # tokens: long enough to be interrupted
HELD_UP = 600  # tokens: long enough to be held up for a while, and then to finish soon


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> str:
    return (tmp_path_factory.mktemp("artifacts") / "store").as_uri()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def bases(artifacts: str, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Digests of two bases."""
    store = ArtifactStore(artifacts)
    return [store.put_folder(tiny_base(tmp_path_factory.mktemp("base"), seed=seed)).digest for seed in (1, 2)]


@pytest.fixture(scope="module")
def shared(valkey: str, artifacts: str, cache: Path) -> Iterator[tuple[Engines, list[dict[str, Any]]]]:
    """Engines with room for everything, used by the tests that break nothing."""
    with engines_in(cache, redis_url=valkey, artifacts=artifacts) as both:
        yield both


@pytest.fixture
def reader(valkey: str) -> Reader:
    return Reader(valkey)


def test_an_answer_is_streamed_and_reported_once(shared, bases: list[str], reader: Reader) -> None:
    engines, sent = shared
    request = a_request(bases[0], max_tokens=12)

    engines.submit(request)

    last = reader.last(request)
    events = reader.events(request)
    assert [event["type"] for event in events[:2]] == ["started", "delta"]
    assert events[-1] == last
    assert last["reason"] == "length"
    assert last["usage"]["completion_tokens"] == 12
    assert last["usage"]["prompt_tokens"] == events[0]["prompt_tokens"]
    assert wait_until(lambda: [event for event in sent if event["request"] == request.id]) == [last]
    assert reader.valkey.ttl(stream_key(request.id)) > 0


def test_choices_and_log_probabilities_are_streamed_side_by_side(shared, bases: list[str], reader: Reader) -> None:
    engines, _ = shared
    sampling = SamplingParams(max_tokens=6, temperature=1.0, seed=3, n=3, logprobs=1, logit_bias={70: -100}).to_json()
    request = a_request(bases[0], sampling=sampling)

    engines.submit(request)

    last = reader.last(request)
    deltas = [event for event in reader.events(request) if event["type"] == "delta"]
    assert last["usage"]["completion_tokens"] == 18
    for number in range(3):
        of_choice = [delta for delta in deltas if delta["choice"] == number]
        told = [entry for delta in of_choice for entry in delta.get("logprobs", [])]
        assert len(told) == 6
        assert b"".join(bytes(entry["bytes"]) for entry in told).decode(errors="ignore") == "".join(delta["text"] for delta in of_choice)
        assert [delta.get("reason") for delta in of_choice] == [None] * (len(of_choice) - 1) + ["length"]


def test_who_asks_once_waits_for_few_of_those_who_asked_before(shared, bases: list[str], reader: Reader) -> None:
    engines, sent = shared
    before = len(sent)
    many = [replace(a_request(bases[0], max_tokens=20 + number), tenant="many") for number in range(100)]
    once = replace(a_request(bases[0], max_tokens=20), tenant="once")

    for request in [*many, once]:
        engines.submit(request)

    for request in [*many, once]:
        assert reader.last(request)["reason"] == "length"
    ended = wait_until(lambda: len(sent) == before + 101 and [event["request"] for event in sent[before:]])
    assert ended.index(once.id) < 50  # it began with one of the first that were over; in their order, it would be given behind the 53rd


def test_an_engine_beats_and_says_what_its_worker_holds(shared, bases: list[str], reader: Reader) -> None:
    engines, _ = shared
    request = a_request(bases[0])
    engines.submit(request)
    reader.last(request)

    (started,) = (event for event in reader.events(request) if event["type"] == "started")

    stats = json.loads(wait_until(lambda: reader.valkey.get(engine_key(started["engine"]))))
    assert stats["base"] == bases[0]
    assert stats["running"] == 0
    assert reader.valkey.zscore(holders_key(bases[0]), "worker-test") == pytest.approx(time.time(), abs=3)
    assert reader.valkey.zscore(precision_key(bases[0]), "float32") == pytest.approx(time.time(), abs=3)


def test_a_single_base_is_kept_in_what_its_operator_chose_for_it(
    valkey: str, artifacts: str, cache: Path, bases: list[str], reader: Reader
) -> None:
    precision = Precision("float32", {bases[1][:8]: "int8"})
    with engines_in(cache, redis_url=valkey, artifacts=artifacts, precision=precision) as (engines, _):
        for base in bases:
            request = a_request(base)
            engines.submit(request)
            assert reader.last(request)["reason"] == "length"

        wait_until(lambda: reader.valkey.zscore(precision_key(bases[1]), "int8"))
        wait_until(lambda: all(engines.held().get(base, {}).get("dtype") for base in bases))
        assert [engines.held()[base]["dtype"] for base in bases] == ["float32", "int8"]


def test_a_cancelled_request_is_released(shared, bases: list[str], reader: Reader) -> None:
    engines, _ = shared
    request = a_request(bases[0], max_tokens=LONG, leased=True)
    reader.lease(request)
    engines.submit(request)
    reader.begun(request)

    reader.lease(request, CANCELLED)

    last = reader.last(request)
    assert last["reason"] == "cancelled"
    assert 0 < last["usage"]["completion_tokens"] < LONG
    wait_until(lambda: engines.held()[bases[0]].get("running") == 0, within_s=5)


def test_a_request_nobody_reads_is_cancelled(shared, bases: list[str], reader: Reader) -> None:
    engines, _ = shared
    request = a_request(bases[0], max_tokens=LONG, leased=True)
    reader.lease(request)
    engines.submit(request)
    reader.begun(request)

    reader.valkey.pexpire(f"requests:{request.id}:lease", 1)

    assert reader.last(request)["reason"] == "cancelled"


def test_a_second_attempt_at_a_request_takes_the_place_of_the_first(shared, bases: list[str], reader: Reader) -> None:
    """As the store makes one when it took the engine for dead."""
    engines, sent = shared
    first, bystander = (a_request(bases[0], max_tokens=LONG) for _ in range(2))
    for request in (first, bystander):
        engines.submit(request)
        reader.begun(request)
    held_by = engines.pids()[bases[0]]

    engines.submit(replace(first, attempt=2, sampling={**first.sampling, "max_tokens": 5}))

    wait_until(lambda: [event["attempt"] for event in reader.events(first) if event["type"] == "finished"][-1:] == [2])
    ends = {event["attempt"]: event for event in reader.events(first) if event["type"] == "finished"}
    assert (ends[1]["reason"], ends[2]["reason"], ends[2]["usage"]["completion_tokens"]) == ("cancelled", "length", 5)
    assert reader.last(bystander)["reason"] == "length"
    assert engines.pids()[bases[0]] == held_by
    wait_until(lambda: engines.held()[bases[0]].get("running") == 0, within_s=5)


def test_a_wrong_request_fails_alone(shared, bases: list[str], reader: Reader) -> None:
    engines, sent = shared
    good = a_request(bases[0], max_tokens=60)
    wrong = a_request(bases[0], "word " * 20_000)
    engines.submit(good)

    engines.submit(wrong)

    failure = reader.last(wrong)
    assert (failure["reason"], failure["failure"]) == ("error", "context_length_exceeded")
    assert failure["detail"]["prompt_tokens"] > failure["detail"]["context_length"]
    assert reader.last(good)["reason"] != "error"
    assert failure in wait_until(lambda: failure in sent and sent)


def test_a_rule_that_would_end_its_compiler_fails_alone(shared, bases: list[str], reader: Reader) -> None:
    """References that lead to references are followed to the end, and that is the end of the process that does."""
    engines, _ = shared
    endless = {"$ref": "#/$defs/d0", "$defs": {f"d{i}": {"items": {"$ref": f"#/$defs/d{i + 1}"}} for i in range(600)} | {"d600": {}}}
    rules = [None, Grammar(Form.JSON_SCHEMA, endless), Grammar(Form.CHOICE, ["yes", "no"])]
    requests = [a_request(bases[0], sampling=SamplingParams(max_tokens=HELD_UP, grammar=rule).to_json()) for rule in rules]

    for request in requests:
        engines.submit(request)

    free, refused, ruled = (reader.last(request) for request in requests)
    assert (free["reason"], free["usage"]["completion_tokens"]) == ("length", HELD_UP)
    assert (refused["failure"], refused["usage"]["completion_tokens"]) == ("grammar_unsupported", 0)
    assert ruled["reason"] == "stop"
    assert "".join(event.get("text", "") for event in reader.events(requests[2])) in ("yes", "no")
    (name,) = {event["engine"] for request in requests for event in reader.events(request) if event["type"] == "started"}
    assert wait_until(lambda: reader.valkey.exists(engine_key(name)))  # it beats on: what it beat before was forgotten with the test before


def test_a_conversation_that_its_template_never_finishes_holds_up_nobody_else_and_fails_alone(
    valkey: str, artifacts: str, cache: Path, reader: Reader, tmp_path: Path
) -> None:
    base = ArtifactStore(artifacts).put_folder(hostile_base(tmp_path)).digest
    with engines_in(cache, redis_url=valkey, artifacts=artifacts) as (engines, sent):
        good, loops = a_request(base, max_tokens=HELD_UP), a_request(base, "loops")
        engines.submit(good)
        reader.begun(good)
        huge = replace(a_request(base, "huge"), tenant="second")
        backtracks = replace(a_request(base, ("b" * 18 + "c") * 1500, embedding={"dimensions": None}), tenant="third")
        late = a_request(base, deadline=time.time() + 0.3)  # behind the one that loops, being its tenant's
        unwanted = a_request(base, leased=True)
        patient = a_request(base)
        others = [replace(a_request(base, embedding=embedding), tenant="other") for embedding in (None, {"dimensions": None})]
        reader.lease(unwanted)
        for request in (loops, huge, backtracks, late, unwanted, patient, *others):
            engines.submit(request)

        reader.lease(unwanted, CANCELLED)

        assert [reader.last(request)["reason"] for request in others] == ["length", "stop"]
        engines.cancel([backtracks])
        assert [reader.last(request)["reason"] for request in (backtracks, unwanted)] == ["cancelled", "cancelled"]
        assert [reader.last(request)["reason"] for request in (good, late)] == ["length", "deadline"]
        assert [reader.last(request)["failure"] for request in (loops, huge)] == ["template_failed", "template_failed"]
        assert reader.last(patient)["reason"] == "length"
        ends = [event["request"] for event in wait_until(lambda: len(sent) == 9 and sent)]
        assert max(ends.index(request.id) for request in (*others, late, unwanted)) < ends.index(loops.id) < ends.index(patient.id)
        wait_until(lambda: engines.held()[base].get("preparing") == engines.held()[base]["running"] == 0, within_s=5)


def hostile_base(folder: Path) -> Path:
    """A model whose template and whose tokenizer's pattern take too long for some texts."""
    base = with_template(tiny_base(folder), for_those_who_say(loops=NESTED, huge=HUGE))
    return with_pattern(base, "(b+)+$")


def test_an_adapter_changes_the_answer_and_a_missing_one_fails_alone(
    shared, bases: list[str], reader: Reader, artifacts: str, cache: Path, tmp_path: Path
) -> None:
    engines, _ = shared
    base_folder = ArtifactStore(artifacts).materialise(bases[0], cache)
    adapter = ArtifactStore(artifacts).put_folder(tiny_adapter(tmp_path / "adapter", base_folder)).digest
    plain = a_request(bases[0], max_tokens=24)
    adapted = a_request(bases[0], max_tokens=24, adapter=adapter)
    missing = a_request(bases[0], adapter="0" * 64)

    for request in (plain, adapted, missing):
        engines.submit(request)

    assert reader.last(plain)["reason"] != "error"
    assert reader.last(adapted)["reason"] != "error"
    assert reader.text(plain) != reader.text(adapted)
    assert reader.last(missing)["failure"] == "adapter_unavailable"


def test_while_an_adapter_is_fetched_others_are_answered_and_it_can_be_cancelled(
    shared, bases: list[str], reader: Reader, artifacts: str, cache: Path, tmp_path: Path
) -> None:
    engines, _ = shared
    base_folder = ArtifactStore(artifacts).materialise(bases[0], cache)
    adapter = ArtifactStore(artifacts).put_folder(tiny_adapter(tmp_path / "adapter", base_folder, seed=77)).digest
    patient, impatient = (a_request(bases[0], adapter=adapter, leased=True) for _ in range(2))
    other = a_request(bases[0])

    with FileLock(cache / "locks" / adapter):  # as if another process were fetching it
        for request in (patient, impatient):
            reader.lease(request)
            engines.submit(request)
        engines.submit(other)
        assert reader.last(other)["reason"] == "length"
        reader.lease(impatient, CANCELLED)
        assert reader.last(impatient)["reason"] == "cancelled"
        assert [event["type"] for event in reader.events(patient)] == ["started"]

    assert reader.last(patient)["reason"] == "length"


def test_a_base_that_cannot_be_read_is_said_to_be_unavailable(shared, reader: Reader) -> None:
    engines, _ = shared
    request = a_request("0" * 64)

    engines.submit(request)

    assert reader.last(request)["failure"] == "base_unavailable"


def test_a_killed_or_hung_engine_fails_what_it_held_and_the_next_request_starts_another(
    valkey: str, artifacts: str, cache: Path, bases: list[str], reader: Reader
) -> None:
    changes: list[tuple[str, bool]] = []

    def note(base: str, held: bool) -> None:
        changes.append((base, held))

    with engines_in(cache, redis_url=valkey, artifacts=artifacts, on_change=note, hung_after_s=5.0) as (engines, sent):
        lost = [a_request(bases[0], max_tokens=LONG) for _ in range(2)]
        for request in lost:
            engines.submit(request)
        for request in lost:
            reader.begun(request)
        first = engines.pids()[bases[0]]

        os.kill(first, signal.SIGKILL)

        for request in lost:
            assert reader.last(request)["failure"] == "engine_died"
        after = a_request(bases[0], max_tokens=LONG)
        engines.submit(after)
        reader.begun(after)
        second = engines.pids()[bases[0]]
        assert second != first
        assert changes == [(bases[0], True), (bases[0], False), (bases[0], True)]

        os.kill(second, signal.SIGSTOP)

        assert reader.last(after)["failure"] == "engine_died"
        wait_until(lambda: len(sent) == 3)
        assert {event["request"] for event in sent} == {request.id for request in [*lost, after]}
        assert not Path(f"/proc/{second}").exists()


def test_an_idle_base_makes_room_for_another_but_a_busy_one_does_not(
    valkey: str, artifacts: str, cache: Path, bases: list[str], reader: Reader
) -> None:
    # Each tiny engine takes more than half of this.
    with engines_in(cache, redis_url=valkey, artifacts=artifacts, memory_bytes=600 * 2**20, room_within_s=1.0) as (engines, _):
        busy = a_request(bases[0], max_tokens=HELD_UP)
        engines.submit(busy)
        reader.begun(busy)
        first = engines.pids()[bases[0]]
        os.kill(first, signal.SIGSTOP)

        turned_away = a_request(bases[1])
        engines.submit(turned_away)
        assert reader.last(turned_away)["failure"] == "overloaded"
        assert engines.pids() == {bases[0]: first}

        os.kill(first, signal.SIGCONT)
        assert reader.last(busy)["reason"] == "length"
        welcome = a_request(bases[1])
        engines.submit(welcome)
        assert reader.last(welcome)["reason"] != "error"
        assert list(engines.pids()) == [bases[1]]
        assert not Path(f"/proc/{first}").exists()


def test_an_engine_that_does_not_end_or_takes_too_much_memory_is_killed(
    valkey: str, artifacts: str, cache: Path, bases: list[str], reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inference.engines.ENDS_WITHIN_S", 0.5)
    with engines_in(cache, redis_url=valkey, artifacts=artifacts, memory_bytes=600 * 2**20) as (engines, _):
        idle, following = a_request(bases[0]), a_request(bases[1], max_tokens=LONG)
        engines.submit(idle)
        reader.last(idle)
        first = engines.pids()[bases[0]]
        os.kill(first, signal.SIGSTOP)

        engines.submit(following)

        reader.begun(following)
        assert not Path(f"/proc/{first}").exists()

        monkeypatch.setattr("inference.engines.MEMORY_OVERRUN", 0.01)

        last = reader.last(following)
        assert (last["failure"], last["message"].partition(".")[0]) == ("engine_died", "The engine took more memory than it may")


def test_a_base_that_never_fits_is_refused(valkey: str, artifacts: str, cache: Path, bases: list[str], reader: Reader) -> None:
    with engines_in(cache, redis_url=valkey, artifacts=artifacts, memory_bytes=50 * 2**20) as (engines, _):
        request = a_request(bases[0])

        engines.submit(request)

        last = reader.last(request)
        assert last["failure"] == "base_unavailable"
        assert "MB" in last["message"]


@pytest.fixture
def full(valkey: str, artifacts: str, cache: Path, bases: list[str], reader: Reader) -> Iterator[tuple[Engines, GenerationRequest, int]]:
    """Engines that are given one request at a time, the request that fills the first base's, and that engine's process id."""
    with engines_in(cache, redis_url=valkey, artifacts=artifacts, held_at_most=1, hung_after_s=600.0) as (engines, _):
        first = a_request(bases[0], max_tokens=HELD_UP)
        engines.submit(first)
        reader.begun(first)
        pid = engines.pids()[bases[0]]
        os.kill(pid, signal.SIGSTOP)
        yield engines, first, pid
        if Path(f"/proc/{pid}").exists():
            os.kill(pid, signal.SIGCONT)


def test_what_waits_for_a_full_engine_holds_up_no_other_base_and_is_answered_in_its_turn(full, bases: list[str], reader: Reader) -> None:
    engines, first, pid = full
    waiting = [a_request(bases[0]) for _ in range(10)]
    for request in waiting:
        engines.submit(request)
    assert not engines.wait_for_room(bases[0], within_s=0)

    other = a_request(bases[1])
    engines.submit(other)

    assert reader.last(other)["reason"] == "length"
    assert not any(reader.events(request) for request in waiting)
    os.kill(pid, signal.SIGCONT)
    assert [reader.last(request)["reason"] for request in [first, *waiting]] == ["length"] * 11
    assert engines.wait_for_room(bases[0], within_s=10)


def test_what_waits_too_long_or_for_nobody_ends_without_an_engine(full, bases: list[str], reader: Reader) -> None:
    engines, _first, _pid = full
    late = a_request(bases[0], deadline=time.time() + 0.3)
    stopped, unread = (a_request(bases[0], leased=True) for _ in range(2))
    for request in (stopped, unread):
        reader.lease(request)
    for request in (late, stopped, unread):
        engines.submit(request)

    reader.lease(stopped, CANCELLED)
    reader.valkey.delete(lease_key(unread.id))

    assert [reader.last(request)["reason"] for request in (late, stopped, unread)] == ["deadline", "cancelled", "cancelled"]


def test_what_waited_for_an_engine_that_died_is_answered_by_the_next(full, bases: list[str], reader: Reader) -> None:
    engines, first, pid = full
    waiting = a_request(bases[0])
    engines.submit(waiting)

    os.kill(pid, signal.SIGKILL)

    assert reader.last(first)["failure"] == "engine_died"
    assert reader.last(waiting)["reason"] == "length"


def test_draining_lets_answers_finish_and_turns_away_what_waits(full, bases: list[str], reader: Reader) -> None:
    engines, first, pid = full
    waiting = a_request(bases[0])
    engines.submit(waiting)
    os.kill(pid, signal.SIGCONT)

    engines.drain(within_s=30)

    late = a_request(bases[0])
    engines.submit(late)
    assert reader.last(first)["reason"] == "length"
    assert [reader.last(request)["failure"] for request in (waiting, late)] == ["no_worker", "no_worker"]
    assert not Path(f"/proc/{pid}").exists()
