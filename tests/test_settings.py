"""What the environment decides, and that .env.example tells of all of it."""

from __future__ import annotations

import ast
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from django.conf import settings

from store import secret_key
from store.loopback import is_loopback

ROOT = Path(settings.BASE_DIR)
OF_LIBRARIES = re.compile(r"AWS_|HF_|FORWARDED_ALLOW_IPS$")  # read by what we use
BY_TORCHRUN = {"LOCAL_RANK", "WORLD_SIZE"}  # set by torchrun for each of its processes, by nobody else
READERS = {"_number", "_share", "_amount"}  # functions that take the name of a variable


def setting(name: str, folder: Path, **environment: str) -> str:
    """The value of a setting under exactly this environment."""
    code = f"from store import settings; print(settings.{name})"
    variables = {"PATH": os.environ["PATH"], "VAR_DIR": str(folder), "SITE_URL": "", "HTTPS": "false", **environment}
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=variables, capture_output=True, text=True, check=True).stdout.strip()


# ---------------------------------------------------------------- the demo


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, True),
        ({"SITE_URL": "http://localhost:8000"}, True),
        ({"SITE_URL": "http://store.example"}, False),
        ({"SITE_URL": "http://127.0.0.1:8000", "HTTPS": "true"}, False),
        ({"SITE_URL": "http://store.example", "DEMO": "true"}, True),
        ({"DEMO": "false"}, False),
    ],
)
def test_only_a_store_for_this_machine_has_a_demo_unasked(tmp_path: Path, environment: dict[str, str], wanted: bool) -> None:
    assert setting("DEMO", tmp_path, **environment) == str(wanted)


@pytest.mark.parametrize(
    ("host", "wanted"),
    [
        *[(host, True) for host in ("localhost", "store.localhost", "127.0.0.1", "127.8.9.1", "::1", "[::1]")],
        *[(host, False) for host in ("0.0.0.0", "10.0.0.1", "localhost.example", "store.example", "")],
    ],
)
def test_what_is_of_this_machine(host: str, wanted: bool) -> None:
    assert is_loopback(host) is wanted


# ---------------------------------------------------------------- the broker


def test_workers_reach_the_embedded_valkey_as_another_user_than_the_store(tmp_path: Path) -> None:
    store, worker, broker = (setting(name, tmp_path) for name in ("REDIS_URL", "WORKER_REDIS_URL", "WORKER_BROKER_URL"))

    assert re.fullmatch(r"redis://store:[0-9a-f]{64}@127\.0\.0\.1:7379/0", store)
    assert re.fullmatch(r"redis://worker:[0-9a-f]{64}@127\.0\.0\.1:7379/0", worker)
    assert broker == worker


@pytest.mark.parametrize(
    ("environment", "redis", "broker"),
    [
        ({"REDIS_URL": "redis://v/0"}, "redis://v/0", "redis://v/0"),
        ({"REDIS_URL": "redis://v/0", "WORKER_REDIS_URL": "redis://w@v/0"}, "redis://w@v/0", "redis://w@v/0"),
        ({"REDIS_URL": "redis://v/0", "BROKER_URL": "amqp://q"}, "redis://v/0", "amqp://q"),
        ({"REDIS_URL": "redis://v/0", "BROKER_URL": "amqp://q", "WORKER_BROKER_URL": "amqp://w@q"}, "redis://v/0", "amqp://w@q"),
    ],
)
def test_workers_reach_another_broker_as_the_operator_says(tmp_path: Path, environment: dict[str, str], redis: str, broker: str) -> None:
    assert setting("WORKER_REDIS_URL", tmp_path, **environment) == redis
    assert setting("WORKER_BROKER_URL", tmp_path, **environment) == broker


# ---------------------------------------------------------------- the secret key


def test_the_folder_of_an_installation_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    folder = Path(setting("VAR_DIR", tmp_path / "var"))

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_the_secret_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: secret_key.kept_in(tmp_path), range(32)))

    (key,) = keys
    assert len(key) >= 50
    assert stat.S_IMODE((tmp_path / "secret_key").stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret_key", "secret_key.lock"]


def test_a_key_file_left_empty_is_filled(tmp_path: Path) -> None:
    (tmp_path / "secret_key").touch(mode=0o600)

    key = secret_key.kept_in(tmp_path)

    assert len(key) >= 50
    assert secret_key.kept_in(tmp_path) == key


# ---------------------------------------------------------------- .env.example


def read_by_code() -> Iterator[str]:
    """Names of the environment variables that the store and the workers look at."""
    for folder in ("store", "inference"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant) and _reads(node.func):
                    yield str(node.args[0].value)
                if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load) and _is_environ(node.value):
                    yield str(getattr(node.slice, "value", ast.unparse(node.slice)))


def _reads(function: ast.expr) -> bool:
    if isinstance(function, ast.Name):
        return function.id in READERS | {"getenv"}
    if not isinstance(function, ast.Attribute):
        return False
    is_of_env = isinstance(function.value, ast.Name) and function.value.id == "env" and function.attr != "read_env"
    return is_of_env or function.attr == "getenv" or (function.attr == "get" and _is_environ(function.value))


def _is_environ(value: ast.expr) -> bool:
    return ast.unparse(value) in ("os.environ", "environ")


def test_the_example_explains_every_variable_and_no_other() -> None:
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    explained = [match[1] for line in lines if (match := re.match(r"#?([A-Z][A-Z0-9_]*)=", line))]

    read = set(read_by_code())

    assert {"SECRET_KEY", "WORKER_ROLE", "WORKER_MEMORY_SHARE", "PLAIN_STATIC", "LOG_JSON", "ARTIFACT_URL"} <= read
    assert sorted(read - set(explained) - BY_TORCHRUN) == []
    assert sorted(name for name in set(explained) - read if not OF_LIBRARIES.match(name)) == []
    assert len(explained) == len(set(explained))
