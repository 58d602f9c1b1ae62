"""What a worker that was taken over can make of the queue it reports on: nothing but reports."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from celery import Celery
from django.conf import settings

from inference.delivery import celery_sender, connect
from inference.protocol import EVENTS_QUEUE, JOB_CLAIM
from store.celery import app
from store.worker_messages import NotAReport, require_report

EVENT = {"type": "finished", "request": "req_1", "attempt": 1}
EVIL = {"task": "store.billing.void_expired", "args": [], "kwargs": {}, "options": {"queue": "store"}}


def sent() -> dict[str, Any]:
    """A report as a worker's Celery application puts it into the queue, taken out again."""
    celery_sender(Celery("inference", broker=settings.WORKER_BROKER_URL, fixups=[], set_as_current=False))(EVENT)
    return dict(json.loads(connect(settings.REDIS_URL).rpop(EVENTS_QUEUE)))


def put(message: dict[str, Any]) -> None:
    """With a worker's own rights, past Celery."""
    connect(settings.WORKER_REDIS_URL).lpush(EVENTS_QUEUE, json.dumps(message))


def arrived() -> list[dict[str, Any]]:
    """Headers of what the store's worker would now be handed."""
    found = []
    with app.connection_for_read() as connection:
        consumer = app.amqp.TaskConsumer(connection, queues=[app.amqp.queues[EVENTS_QUEUE]])
        consumer.on_message = lambda message: (found.append(message.headers), message.ack())
        with consumer, suppress(socket.timeout):
            while True:
                connection.drain_events(timeout=0.5)
    return found


def with_body(change: Callable[[list[Any]], object]) -> Callable[[dict[str, Any]], None]:
    def forge(message: dict[str, Any]) -> None:
        body = json.loads(base64.b64decode(message["body"]))
        change(body)
        message["body"] = base64.b64encode(json.dumps(body).encode()).decode()

    return forge


def with_header(**headers: Any) -> Callable[[dict[str, Any]], None]:
    return lambda message: message["headers"].update(headers)


def claiming(exchange: str, routing_key: str) -> Callable[[dict[str, Any]], None]:
    return lambda message: message["properties"].update(delivery_info={"exchange": exchange, "routing_key": routing_key})


def as_pickle(message: dict[str, Any]) -> None:
    message["content-type"] = "application/x-python-serialize"


def in_the_old_form(message: dict[str, Any]) -> None:
    body = {"task": EVIL["task"], "id": "1", "args": [], "kwargs": {}}
    message["headers"] = {}
    message["body"] = base64.b64encode(json.dumps(body).encode()).decode()


def test_a_report_arrives() -> None:
    put(sent())

    assert [headers["task"] for headers in arrived()] == ["store.generation.finished"]


def test_a_question_about_a_job_arrives() -> None:
    asking = Celery("inference", broker=settings.WORKER_BROKER_URL, backend=settings.WORKER_REDIS_URL, fixups=[], set_as_current=False)
    asking.send_task(JOB_CLAIM, args=[{"job": "job_1"}], queue=EVENTS_QUEUE, expires=10.0)

    assert [headers["task"] for headers in arrived()] == [JOB_CLAIM]


@pytest.mark.parametrize(
    "forge",
    [
        pytest.param(with_header(task="store.billing.void_expired"), id="another task of the store"),
        pytest.param(with_header(task="celery.chord_unlock"), id="a task of Celery's own"),
        pytest.param(with_header(task="nothing", errbacks=[EVIL]), id="an unknown task whose failure is reported"),
        pytest.param(claiming("", "store"), id="from the store's own queue"),
        pytest.param(claiming("store", EVENTS_QUEUE), id="by another exchange"),
        pytest.param(with_body(lambda body: body[2].update(callbacks=[EVIL])), id="with something to call after it"),
        pytest.param(with_body(lambda body: body[2].update(errbacks=[EVIL])), id="with something to call if it fails"),
        pytest.param(with_body(lambda body: body[2].update(chain=[EVIL])), id="as the first of a chain"),
        pytest.param(with_body(lambda body: body[2].update(chord=EVIL)), id="as a part of a chord"),
        pytest.param(with_header(group="g", group_index=0), id="as one of a group"),
        pytest.param(with_header(eta="2100-01-01T00:00:00+00:00"), id="for later"),
        pytest.param(with_header(timelimit=[None, 0.001]), id="with a time limit"),
        pytest.param(with_header(compression="application/x-gzip"), id="compressed"),
        pytest.param(with_body(lambda body: body[0].append("more")), id="with two arguments"),
        pytest.param(with_body(lambda body: body[1].update(more=1)), id="with a keyword"),
        pytest.param(with_body(lambda body: body[0].clear()), id="without arguments"),
        pytest.param(as_pickle, id="as a pickle"),
        pytest.param(in_the_old_form, id="in the first form of Celery's messages"),
    ],
)
def test_what_is_more_than_a_report_is_none(forge: Callable[[dict[str, Any]], None]) -> None:
    message = sent()
    forge(message)

    with app.connection_for_read() as connection, pytest.raises(NotAReport):
        require_report(connection.default_channel.message_to_python(message))


def test_what_is_no_report_reaches_nobody_and_is_kept_nowhere() -> None:
    message, forged = sent(), sent()
    claiming("", "store")(forged)
    put(forged)
    put(message | {"body": "{"})
    put(message)

    assert len(arrived()) == 1

    valkey = connect(settings.REDIS_URL)
    assert [key for key in valkey.scan_iter() if not key.startswith("_kombu.binding")] == []
