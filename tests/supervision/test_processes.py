"""What each process of an installation is told."""

from __future__ import annotations

import os
from collections.abc import Mapping

import pytest
from django.conf import LazySettings

from inference.protocol import JOB_WORKERS
from store.supervision.errors import CannotStart
from store.supervision.processes import ProcessSpec, Site, _beating, installation
from store.valkey import client

SITE = Site("127.0.0.1", 8123, "http://127.0.0.1:8123")
WORKERS = ("generate", "training", "checks")
SECRETS = {
    "SECRET_KEY": "of the store",
    "DATABASE_URL": "postgres://store:password@db/store",
    "EMAIL_HOST_PASSWORD": "of the mail server",
    "METRICS_TOKEN": "of the metrics",
    "SOMETHING_NEW": "that nobody thought of",
}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    for name in ("WORKER_MEMORY_BYTES", "WORKER_MEMORY_SHARE"):
        monkeypatch.delenv(name, raising=False)


def specs() -> dict[str, ProcessSpec]:
    return {spec.name: spec for spec in installation(SITE)}


def option(spec: ProcessSpec, name: str) -> str:
    return spec.argv[spec.argv.index(name) + 1]


def test_there_is_a_worker_for_each_kind_of_work() -> None:
    found = specs()

    assert list(found) == ["broker", "web", "store", "beat", *WORKERS]
    assert [option(found[name], "-Q") for name in WORKERS] == ["generation.load", "jobs.training", "jobs.checks"]
    assert [found[name].env["WORKER_ROLE"] for name in WORKERS] == ["generation", "jobs", "jobs"]
    assert len({found[name].env["WORKER_NAME"] for name in WORKERS}) == 3


def test_training_gives_way_to_everything_and_checks_to_answers_unless_the_operator_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORKER_JOB_NICE", raising=False)
    usual = specs()
    monkeypatch.setenv("WORKER_JOB_NICE", "0")
    told = specs()

    assert [usual[name].env.get("WORKER_JOB_NICE") for name in WORKERS] == [None, "19", "5"]
    assert [told[name].env["WORKER_JOB_NICE"] for name in ("training", "checks")] == ["0", "0"]


@pytest.mark.parametrize("name", ["broker", *WORKERS])
def test_secrets_of_the_store_are_told_to_the_store_alone(name: str) -> None:
    found = specs()

    assert set(SECRETS) & set(found[name].env) == set()
    assert set(SECRETS) <= set(found["web"].env) & set(found["store"].env) & set(found["beat"].env)
    assert found[name].env["PATH"] == os.environ["PATH"]


def test_workers_reach_the_broker_as_the_user_that_may_do_less(settings: LazySettings) -> None:
    for name in WORKERS:
        told = specs()[name].env
        assert (told["REDIS_URL"], told["BROKER_URL"]) == (settings.WORKER_REDIS_URL, settings.WORKER_BROKER_URL)
        assert settings.VALKEY_PASSWORDS["store"] not in str(told)


def test_the_store_knows_the_port_and_the_address_it_was_started_with() -> None:
    for name in ("web", "store", "beat"):
        told = specs()[name].env
        assert (told["HOST"], told["PORT"], told["SITE_URL"]) == ("127.0.0.1", "8123", "http://127.0.0.1:8123")


# ---------------------------------------------------------------- memory


def memory(name: str) -> Mapping[str, str]:
    return {key: value for key, value in specs()[name].env.items() if key.startswith("WORKER_MEMORY")}


def test_workers_share_what_the_machine_has_and_leave_an_eighth() -> None:
    assert [memory(name) for name in WORKERS] == [
        {"WORKER_MEMORY_SHARE": "0.5"},
        {"WORKER_MEMORY_SHARE": "0.25"},
        {"WORKER_MEMORY_SHARE": "0.125"},
    ]


def test_workers_share_what_the_operator_gives_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKER_MEMORY_BYTES", str(7 * 2**30))

    assert [int(memory(name)["WORKER_MEMORY_BYTES"]) for name in WORKERS] == [4 * 2**30, 2 * 2**30, 2**30]


def test_workers_share_the_share_that_the_operator_gives_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKER_MEMORY_SHARE", "0.4375")

    assert [memory(name)["WORKER_MEMORY_SHARE"] for name in WORKERS] == ["0.25", "0.125", "0.0625"]


def test_an_amount_that_is_no_number_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKER_MEMORY_BYTES", "8G")

    with pytest.raises(CannotStart, match="WORKER_MEMORY_BYTES is '8G'"):
        installation(SITE)


# ---------------------------------------------------------------- readiness


def test_a_worker_is_ready_when_it_beats_itself() -> None:
    ready = _beating(JOB_WORKERS, "checks-here")

    client().zadd(JOB_WORKERS, {"training-here.7": 2e10})
    assert not ready()

    client().zadd(JOB_WORKERS, {"checks-here.8": 2e10})
    assert ready()
