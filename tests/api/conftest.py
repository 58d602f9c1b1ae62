from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import uvicorn

from store.accounts import keys
from store.accounts.models import User
from store.asgi import application
from tests import making
from tests.api.engine import ScriptedEngine


@dataclass(frozen=True)
class Caller:
    user: User
    secret: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.secret}"}


@pytest.fixture
def caller() -> Caller:
    user = making.make_user("caller")
    return Caller(user, keys.create_key(user, name="tests")[1])


@pytest.fixture
def engine() -> Iterator[ScriptedEngine]:
    engine = ScriptedEngine()
    engine.start()
    yield engine
    engine.stop()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Where the real ASGI application answers, served by uvicorn on a thread of this process."""
    server = uvicorn.Server(uvicorn.Config(application, port=0, log_level="error", lifespan="off", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while not server.started:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(timeout=10)
