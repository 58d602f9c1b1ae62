"""A real Celery worker process: requests come by the broker, answers by Valkey, reports by the store's event queue."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery, current_app
from django.conf import settings
from kombu import Connection, Exchange, Queue

from inference.artifacts import ArtifactStore
from inference.delivery import connect
from inference.engines import EngineHouse
from inference.protocol import (
    EVENTS_QUEUE,
    GENERATE,
    GENERATION_FINISHED,
    GENERATION_WORKERS,
    LOAD_QUEUE,
    GenerationRequest,
    base_queue,
    claim_key,
    holders_key,
)
from store import environment
from tests.inference.serving import Reader, a_request, wait_until
from tests.inference.tiny import tiny_base

HELD_AT_MOST = EngineHouse.held_at_most
OPTIONS = ("--pool=threads", "--concurrency=4", "--without-gossip", "--without-mingle", "--without-heartbeat")


@dataclass
class Running:
    """A worker under test, and the store's side of its broker."""

    process: subprocess.Popen[bytes]
    app: Celery
    reader: Reader
    log: Path

    @property
    def name(self) -> str:
        names: Any = self.reader.valkey.zrange(GENERATION_WORKERS, 0, -1)
        return next((name for name in names if name.startswith("generation-test.")), "")

    def ask(self, request: GenerationRequest, queue: str) -> None:
        self.app.send_task(GENERATE, args=[request.to_json()], queue=queue)

    def reports(self, request: GenerationRequest) -> list[dict[str, Any]]:
        """What the store was told about a request."""
        found = []
        for raw in self.reader.valkey.lrange(EVENTS_QUEUE, 0, -1):
            message = json.loads(raw)
            arguments = json.loads(base64.b64decode(message["body"]))[0]
            assert message["headers"]["task"] == GENERATION_FINISHED
            found += [event for event in arguments if event["request"] == request.id]
        return found

    def claimed(self, requests: list[GenerationRequest]) -> list[str]:
        """Those of the requests that the worker has taken."""
        return [request.id for request in requests if self.reader.valkey.exists(claim_key(request.id, 1))]

    def children(self) -> list[int]:
        """Process ids of its engines."""
        children = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return [int(pid) for listed in children for pid in listed.read_text().split()]


def start(folder: Path) -> Running:
    url, own_url = (f"{address.removesuffix('/0')}/2" for address in (settings.REDIS_URL, settings.WORKER_REDIS_URL))  # others empty 0
    variables = {
        **environment.of_workers(),
        "WORKER_ROLE": "generation",
        "WORKER_NAME": "generation-test",
        "BROKER_URL": own_url,
        "REDIS_URL": own_url,
        "ARTIFACT_URL": (folder / "artifacts").as_uri(),
        "WORKER_CACHE_DIR": str(folder / "cache"),
        "WORKER_DTYPE": "float32",
        "WORKER_THREADS": "1",
        "LOG_LEVEL": "INFO",
        "LOG_JSON": "1",
    }
    log = folder / "worker.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*(sys.executable, "-m", "celery", "-A", "inference.worker", "worker"), *OPTIONS, "-Q", LOAD_QUEUE],
            env=variables,
            cwd=settings.BASE_DIR,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    connect(url).acl_log_reset()
    app = Celery("store", broker=url, fixups=[], set_as_current=False)
    app.conf.update(task_serializer="json", task_ignore_result=True)
    running = Running(process, app, Reader(url), log)

    def beating() -> str:
        assert process.poll() is None, log.read_text()
        return running.name

    wait_until(beating)
    return running


@pytest.fixture(scope="module")
def worker(valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = start(tmp_path_factory.mktemp("worker"))
    yield running
    if running.process.poll() is None:
        running.process.terminate()
        running.process.wait(timeout=60)


@pytest.fixture(scope="module")
def base(worker: Running, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tiny_base(tmp_path_factory.mktemp("base"), seed=1)
    return ArtifactStore((worker.log.parent / "artifacts").as_uri()).put_folder(folder).digest


@pytest.fixture
def held_base(worker: Running, base: str) -> str:
    """The base, once the worker holds it."""
    worker.ask(first := a_request(base), LOAD_QUEUE)
    worker.reader.last(first)
    return base


@pytest.fixture(scope="module")
def other_base(worker: Running, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tiny_base(tmp_path_factory.mktemp("other"), seed=2)
    return ArtifactStore((worker.log.parent / "artifacts").as_uri()).put_folder(folder).digest


def test_a_request_by_the_placement_queue_loads_its_base_and_is_reported_once(worker: Running, base: str) -> None:
    request = a_request(base, trace="web-request-1")

    worker.ask(request, LOAD_QUEUE)
    worker.ask(request, LOAD_QUEUE)  # delivered twice

    last = worker.reader.last(request)
    assert last["reason"] in ("length", "stop")
    assert wait_until(lambda: worker.reports(request)) == [last]
    assert [event["type"] for event in worker.reader.events(request)].count("started") == 1
    lines = [json.loads(line) for line in worker.log.read_text().splitlines() if line.startswith("{")]
    assert {line["event"] for line in lines if line.get("request_id") == "web-request-1"} >= {"generation begins", "delivered twice"}


def test_a_worker_that_holds_a_base_takes_from_its_queue(worker: Running, held_base: str) -> None:
    wait_until(lambda: worker.reader.valkey.zscore(holders_key(held_base), worker.name))
    request = a_request(held_base)

    worker.ask(request, base_queue(held_base))

    assert worker.reader.last(request)["reason"] in ("length", "stop")


def test_a_full_base_leaves_its_requests_in_its_queue_and_holds_up_no_other(worker: Running, held_base: str, other_base: str) -> None:
    (engine,) = worker.children()
    worker.ask(first := a_request(other_base), LOAD_QUEUE)
    worker.reader.last(first)
    queue, valkey = base_queue(held_base), worker.reader.valkey
    wait_until(lambda: valkey.zscore(holders_key(held_base), worker.name))
    os.kill(engine, signal.SIGSTOP)
    try:
        asked = [a_request(held_base) for _ in range(2 * HELD_AT_MOST)]
        for request in asked:
            worker.ask(request, queue)
        wait_until(lambda: len(worker.claimed(asked)) == HELD_AT_MOST)
        by_placement = [a_request(held_base) for _ in range(10)]  # more than the worker has threads
        for request in by_placement:
            worker.ask(request, LOAD_QUEUE)

        worker.ask(other := a_request(other_base), LOAD_QUEUE)

        assert worker.reader.last(other)["reason"] in ("length", "stop")
        assert len(worker.claimed(asked)) == HELD_AT_MOST
        assert valkey.llen(queue) >= HELD_AT_MOST - 1  # one may be on its way
    finally:
        with suppress(ProcessLookupError):
            os.kill(engine, signal.SIGCONT)
    assert {worker.reader.last(request)["reason"] for request in [*asked, *by_placement]} <= {"length", "stop"}
    assert valkey.llen(queue) == 0


def test_what_the_store_has_withdrawn_is_not_begun(worker: Running, held_base: str) -> None:
    withdrawn, after = a_request(held_base), a_request(held_base)
    worker.reader.valkey.set(claim_key(withdrawn.id, 1), "store")

    for request in (withdrawn, after):
        worker.ask(request, base_queue(held_base))

    worker.reader.last(after)
    assert worker.reader.events(withdrawn) == []


def test_a_request_that_comes_too_late_or_that_nobody_reads_is_not_begun(worker: Running, base: str) -> None:
    late = a_request(base, deadline=time.time() - 1)
    unread = a_request(base, leased=True)

    worker.ask(late, LOAD_QUEUE)
    worker.ask(unread, LOAD_QUEUE)

    assert worker.reader.last(late)["reason"] == "deadline"
    assert worker.reader.last(unread)["reason"] == "cancelled"
    assert [event["type"] for event in worker.reader.events(late)] == ["finished"]
    assert len(wait_until(lambda: worker.reports(late))) == 1


def test_a_broker_that_forgot_everything_still_gets_the_report(worker: Running, base: str) -> None:
    worker.reader.valkey.flushdb()
    request = a_request(base)

    worker.ask(request, LOAD_QUEUE)

    last = worker.reader.last(request)
    assert wait_until(lambda: worker.reports(request)) == [last]


def test_an_engine_does_not_outlive_a_killed_worker(worker: Running, base: str) -> None:
    request = a_request(base, max_tokens=1800)
    worker.ask(request, LOAD_QUEUE)
    worker.reader.begun(request)
    engines = worker.children()
    assert engines

    os.kill(worker.process.pid, signal.SIGKILL)
    worker.process.wait(timeout=10)

    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in engines))


def test_what_a_worker_took_and_did_not_begin_goes_back_to_its_queue(valkey: str) -> None:
    from inference.worker import app

    queue = Queue(LOAD_QUEUE, Exchange(LOAD_QUEUE), routing_key=LOAD_QUEUE)
    reader = connect(valkey)
    with Connection(settings.WORKER_BROKER_URL, transport_options=app.conf.broker_transport_options) as connection:
        connection.Producer().publish({"a": "request"}, routing_key=LOAD_QUEUE, declare=[queue])
        with connection.Consumer([queue], callbacks=[lambda body, message: None]):
            connection.drain_events(timeout=5)
        assert reader.llen(LOAD_QUEUE) == 0

    assert reader.llen(LOAD_QUEUE) == 1


def test_whoever_imports_the_worker_keeps_their_own_broker(valkey: str) -> None:
    from inference.worker import app

    assert current_app._get_current_object() is not app
    assert current_app.conf.broker_url == valkey


def test_the_broker_refused_the_worker_nothing(valkey: str) -> None:
    refusals = redis.Redis.from_url(valkey, decode_responses=True).acl_log()

    assert [(entry["object"], entry["context"]) for entry in refusals] == []
