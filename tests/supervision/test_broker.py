"""What the users of the embedded Valkey may do. That a worker may do all it needs is seen in tests/inference/test_worker.py."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
import redis
from django.conf import settings
from django.core.management import call_command
from redis.exceptions import AuthenticationError, NoPermissionError

from inference import protocol
from store.supervision.broker import access_list, embedded_valkey


@pytest.fixture
def worker() -> redis.Redis:
    return redis.Redis.from_url(settings.WORKER_REDIS_URL, decode_responses=True)


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(("LPUSH", "store", "{}"), id="call the store"),
        pytest.param(("GET", "cache:2:allauth"), id="read the cache"),
        pytest.param(("SET", "cache:2:allauth", "[]"), id="write the cache"),
        pytest.param(("SET", "ratelimit:generation:user:1", "0"), id="lift a limit"),
        pytest.param(("GET", "requests:req_1:order"), id="read what was asked of others"),
        pytest.param(("SET", protocol.lease_key("req_1"), "cancel"), id="cancel a request"),
        pytest.param(("ZREM", protocol.inflight_key("b"), "req_1"), id="make room for requests"),
        pytest.param(("SET", "jobs:reconciler:watching", "0"), id="mislead the reconciler"),
        pytest.param(("SET", "celery-task-meta-1", "{}"), id="answer for the store"),
        pytest.param(("BRPOP", "store.events", "1"), id="read other workers' reports"),
        pytest.param(("DEL", "store.events"), id="lose other workers' reports"),
        pytest.param(("SADD", "_kombu.binding.store", "x"), id="reroute the store's messages"),
        pytest.param(("HSET", "unacked", "1", "[]"), id="have a message delivered again"),
        pytest.param(("PUBLISH", "/0.store.pidbox", "{}"), id="command the store's processes"),
        pytest.param(("PUBLISH", "celery-task-meta-1", "{}"), id="publish an answer"),
        pytest.param(("PSUBSCRIBE", "*"), id="listen to all"),
        pytest.param(("KEYS", "*"), id="list the keys"),
        pytest.param(("SCAN", "0"), id="walk through the keys"),
        pytest.param(("EVAL", "return 1", "0"), id="run a script"),
        pytest.param(("FLUSHALL",), id="empty it"),
        pytest.param(("CONFIG", "GET", "dir"), id="read its configuration"),
        pytest.param(("ACL", "LIST"), id="read the users"),
        pytest.param(("SHUTDOWN",), id="stop it"),
    ],
)
def test_a_worker_cannot(worker: redis.Redis, command: tuple[Any, ...]) -> None:
    with pytest.raises(NoPermissionError):
        worker.execute_command(*command)


def test_who_has_no_password_can_do_nothing() -> None:
    with pytest.raises(AuthenticationError):
        redis.Redis(port=settings.VALKEY_PORT).ping()


def test_the_passwords_are_kept_as_digests_in_a_file_of_the_owner(tmp_path: Path) -> None:
    command = embedded_valkey(tmp_path / "valkey")

    users = Path(command[command.index("--aclfile") + 1])
    assert stat.S_IMODE(users.stat().st_mode) == 0o600
    assert users.read_text() == access_list()
    assert not any(password in access_list() for password in settings.VALKEY_PASSWORDS.values())
    assert settings.VALKEY_PASSWORDS["store"] != settings.VALKEY_PASSWORDS["worker"]


def test_a_valkey_of_the_operators_own_can_be_given_the_same_rights(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("worker_acl")

    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("user worker on >PASSWORD resetkeys resetchannels -@all ")
    assert line.removeprefix("user worker on >PASSWORD ") in access_list()
