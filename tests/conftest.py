"""What every test can use: a broker of its own, and people, publishers and listings made in one line."""

from __future__ import annotations

import gc
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_django
import redis
from django.conf import LazySettings, settings
from django.test import SimpleTestCase
from django.utils import translation

from inference.packaged import SMOLLM2, folder_of
from store import valkey as store_valkey
from store.supervision.broker import embedded_valkey
from tests.postgresql import server as postgresql_server
from tests.stack import Stack, running_stack


@pytest.fixture(scope="session", autouse=True)
def valkey() -> Iterator[str]:
    """The URL of a Valkey server that lives as long as this test process, with the users that `manage.py up` gives it."""
    server = subprocess.Popen([*embedded_valkey(settings.VAR_DIR / "valkey"), "--appendonly", "no"], stdout=subprocess.DEVNULL)
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


@pytest.fixture
def valkey_away(settings: LazySettings) -> Iterator[None]:
    """For the store there is no Valkey at its address."""
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    store_valkey.client.cache_clear()
    yield
    store_valkey.client.cache_clear()


@pytest.fixture(autouse=True)
def language() -> None:
    """Each test begins in the default language, whatever the last request of the one before it was answered in."""
    translation.activate(settings.LANGUAGE_CODE)


def pytest_unconfigure() -> None:
    """The folder that tests.settings made for this process."""
    shutil.rmtree(settings.VAR_DIR, ignore_errors=True)


JOURNEYS = Path(__file__).parent / "journeys"
DATABASE_FIXTURES = {"db", "transactional_db", "stack"}


def _meets_the_database(item: pytest.Item) -> bool:
    if item.get_closest_marker("django_db") or DATABASE_FIXTURES & set(getattr(item, "fixturenames", ())):
        return True
    return issubclass(getattr(item, "cls", None) or object, SimpleTestCase)


def pytest_collection_finish() -> None:
    """What was imported and collected lives as long as the process: to visit it again and again took a tenth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What uses the one stack runs on one worker of the test run, and on PostgreSQL what never asks a database not once more."""
    if hasattr(settings, "POSTGRESQL_PORT"):
        config.hook.pytest_deselected(items=[item for item in items if not _meets_the_database(item)])
        items[:] = [item for item in items if _meets_the_database(item)]
    for item in items:
        if item.get_closest_marker("stack") or item.get_closest_marker("browser"):
            if not item.path.is_relative_to(JOURNEYS):
                raise pytest.UsageError(f"{item.nodeid} uses the running stack: make test looks for such tests in tests/journeys alone.")
            item.add_marker(pytest.mark.stack)
            item.add_marker(pytest.mark.xdist_group("stack"))


@pytest.fixture(scope="session")
def _the_stack(django_db_setup: None, django_db_blocker: pytest_django.DjangoDbBlocker, valkey: str) -> Iterator[Stack]:
    with django_db_blocker.unblock(), running_stack() as stack:
        yield stack


@pytest.fixture
def stack(_the_stack: Stack, django_db_blocker: pytest_django.DjangoDbBlocker) -> Iterator[Stack]:
    """The running store, with its database open to the test and without a transaction around it."""
    with django_db_blocker.unblock():
        yield _the_stack


@pytest.fixture(scope="session")
def smollm2_folder() -> Path:
    """The packaged SmolLM2-135M-Instruct as a Hugging Face folder; converted once and kept under var/."""
    return folder_of(SMOLLM2, settings.BASE_DIR / "var" / "cache", progress=lambda stage, **facts: None)
