"""What the workers of the running store know and may do. Named to run behind the journeys, whose traces it reads."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis
from django.conf import settings

from tests.stack import Stack

pytestmark = [pytest.mark.stack, pytest.mark.real_model]


def told(pid: int) -> dict[str, str]:
    pairs = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs if pair)}


def test_no_worker_knows_the_database_or_the_key(stack: Stack) -> None:
    web, *_ = (told(pid) for pid in stack.pids("uvicorn", "store.asgi"))
    workers = [told(pid) for pid in stack.pids("-m inference") + stack.pids("-A inference.worker")]

    assert len(workers) >= 3
    assert {"DATABASE_URL", "DJANGO_SETTINGS_MODULE"} <= set(web)
    for worker in workers:
        assert set(worker).isdisjoint({"SECRET_KEY", "DATABASE_URL", "DJANGO_SETTINGS_MODULE", "EMAIL_BACKEND", "VAR_DIR", "SITE_URL"})
        assert settings.VALKEY_PASSWORDS["store"] not in str(worker)
        assert f"worker:{settings.VALKEY_PASSWORDS['worker']}@" in worker["REDIS_URL"]


def test_the_broker_refused_its_workers_nothing_they_needed(stack: Stack) -> None:
    valkey = redis.Redis(port=stack.valkey_port, username="store", password=settings.VALKEY_PASSWORDS["store"], decode_responses=True)

    users = {client["user"] for client in valkey.client_list()}

    assert users == {"store", "worker"}
    assert [(entry["username"], entry["object"], entry["context"]) for entry in valkey.acl_log()] == []
