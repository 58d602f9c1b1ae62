import time
import uuid

import pytest
from django.test import Client
from prometheus_client.parser import text_string_to_metric_families

from inference import protocol
from store.valkey import client

pytestmark = pytest.mark.django_db


def beat(*keys: str) -> None:
    for key in keys:
        client().zadd(key, {"worker-1": time.time()})


def test_a_living_process_says_so_without_asking_the_database(django_assert_num_queries: object) -> None:
    with django_assert_num_queries(0):  # type: ignore[operator]
        answer = Client().get("/healthz")

    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_the_store_is_ready_when_the_database_the_broker_and_both_kinds_of_worker_answer() -> None:
    beat(protocol.GENERATION_WORKERS, protocol.JOB_WORKERS)

    answer = Client().get("/readyz")

    assert answer.status_code == 200, answer.json()
    assert answer.json()["workers"] == {"state": "ok", "generation": 1, "jobs": 1}
    assert answer.json()["database"]["state"] == answer.json()["broker"]["state"] == "ok"


def test_without_a_worker_the_store_is_not_ready_and_says_which_is_missing() -> None:
    beat(protocol.GENERATION_WORKERS)
    client().zadd(protocol.JOB_WORKERS, {"dead": time.time() - 60})

    answer = Client().get("/readyz")

    assert answer.status_code == 503
    assert answer.json()["status"] == "unavailable"
    assert answer.json()["workers"] == {"state": "unavailable", "reason": "no worker is running for: jobs"}


def test_metrics_count_workers_and_what_waits() -> None:
    beat(protocol.GENERATION_WORKERS)
    client().lpush(protocol.TRAINING_QUEUE, "one", "two")
    client().set(protocol.engine_key("e1"), '{"name": "e1", "base": "abc", "running": 3, "worker": "w"}')

    answer = Client().get("/metrics")

    families = {family.name: family for family in text_string_to_metric_families(answer.content.decode())}
    values = {(sample.name, *sample.labels.values()): sample.value for family in families.values() for sample in family.samples}
    assert values["gptstore_workers", "generation"] == 1
    assert values["gptstore_workers", "jobs"] == 0
    assert values["gptstore_queue_messages", protocol.TRAINING_QUEUE] == 2
    assert values["gptstore_queue_messages", "store"] == 0
    assert values["gptstore_engine", "abc", "e1", "running"] == 3
    assert values["gptstore_requests_in_flight",] == 0


def test_metrics_are_for_this_machine_or_who_has_the_token(settings: object) -> None:
    settings.METRICS_TOKEN = "a long token"  # type: ignore[attr-defined]

    assert Client(REMOTE_ADDR="10.0.0.8").get("/metrics").status_code == 403
    assert Client(headers={"X-Forwarded-For": "10.0.0.8"}).get("/metrics").status_code == 403
    assert Client(REMOTE_ADDR="10.0.0.8", headers={"Authorization": "Bearer another"}).get("/metrics").status_code == 403
    assert Client(REMOTE_ADDR="10.0.0.8", headers={"Authorization": "Bearer a long token"}).get("/metrics").status_code == 200


def test_robots_are_kept_from_accounts_and_apis() -> None:
    answer = Client().get("/robots.txt")

    assert answer["content-type"] == "text/plain"
    assert "Disallow: /v1/\n" in answer.content.decode()


def test_every_answer_carries_its_request_id_and_takes_over_a_harmless_one() -> None:
    made = Client().get("/healthz")["x-request-id"]
    given = Client(headers={"X-Request-ID": "trace-12345678"}).get("/healthz")["x-request-id"]
    hostile = Client(headers={"X-Request-ID": "a\x1b[31m b"}).get("/healthz")["x-request-id"]

    assert uuid.UUID(made)
    assert given == "trace-12345678"
    assert uuid.UUID(hostile)
