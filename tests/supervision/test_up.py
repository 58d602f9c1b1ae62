"""What `manage.py up` says, and how soon it stops."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import LazySettings, settings
from django.core.management import CommandError, call_command

from store.accounts.models import User
from store.pages.demo import people
from store.supervision.management.commands.up import Command, _site
from store.supervision.processes import Site
from tests.stack import free_port

HERE = Site("127.0.0.1", 8000, "http://127.0.0.1:8000")
ELSEWHERE = Site("0.0.0.0", 8000, "http://store.example")


# ---------------------------------------------------------------- the demo's logins


def said_at_start(capsys: pytest.CaptureFixture[str], site: Site, *, new: bool) -> str:
    Command()._say_logins(site, new=new)
    return capsys.readouterr().out


@pytest.mark.django_db
def test_on_this_machine_the_logins_are_said_at_every_start(capsys: pytest.CaptureFixture[str]) -> None:
    people.seed()

    said = said_at_start(capsys, HERE, new=False)

    assert all(login.password in said for login in people.LOGINS)


@pytest.mark.django_db
@pytest.mark.parametrize("site", [ELSEWHERE, Site("0.0.0.0", 80, "http://127.0.0.1"), Site("127.0.0.1", 80, "http://store.example")])
def test_on_a_store_that_others_reach_they_are_said_once(capsys: pytest.CaptureFixture[str], site: Site) -> None:
    people.seed()

    first, later = said_at_start(capsys, site, new=True), said_at_start(capsys, site, new=False)

    assert all(login.password in first for login in people.LOGINS)
    assert not any(login.password in later for login in people.LOGINS)
    assert "manage.py demo_logins" in later


@pytest.mark.django_db
def test_with_https_they_are_said_once(capsys: pytest.CaptureFixture[str], settings: LazySettings) -> None:
    settings.HTTPS = True
    people.seed()

    assert not any(login.password in said_at_start(capsys, HERE, new=False) for login in people.LOGINS)


@pytest.mark.django_db
def test_a_command_prints_the_logins_that_still_work(capsys: pytest.CaptureFixture[str]) -> None:
    people.seed()
    changed = User.objects.get(username="reviewer")
    changed.set_password("another one 9")
    changed.save()

    call_command("demo_logins")

    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert printed == [[login.role, login.username, login.password] for login in people.LOGINS if login.role != "reviewer"]


@pytest.mark.django_db
def test_without_a_demo_the_command_says_so() -> None:
    with pytest.raises(CommandError, match="DEMO=1 make run"):
        call_command("demo_logins")


# ---------------------------------------------------------------- the address


def test_the_address_follows_the_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SITE_URL", raising=False)

    assert _site("0.0.0.0", 8123).url == "http://127.0.0.1:8123"


def test_the_address_that_the_operator_gives_stays(monkeypatch: pytest.MonkeyPatch, settings: LazySettings) -> None:
    monkeypatch.setenv("SITE_URL", "https://store.example")
    settings.SITE_URL = "https://store.example"

    assert _site("0.0.0.0", 8123).url == "https://store.example"


# ---------------------------------------------------------------- stopping

LONG_PREPARATION = """
import threading
import django
django.setup()
from django.core.management import call_command
from store.supervision.management.commands import up

def prepare(say):
    say("preparing for long")
    threading.Event().wait(600)

up.prepare = prepare
call_command("up", prepare=True, host="127.0.0.1", port={port})
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_the_preparation_stops_at_once(tmp_path: Path, number: signal.Signals) -> None:
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "store.settings", "VAR_DIR": str(tmp_path), "VALKEY_PORT": str(free_port())}
    process = subprocess.Popen(
        [sys.executable, "-c", LONG_PREPARATION.format(port=free_port())],
        cwd=settings.BASE_DIR,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        said = []
        for line in process.stdout:
            said.append(line)
            if "preparing for long" in line:
                process.send_signal(number)
                break
        rest, _ = process.communicate(timeout=30)
    finally:
        process.kill()

    assert process.returncode == 0, said
    assert "stopping: workers first, the broker last" in rest
    assert "The store is open" not in rest
    assert "web" not in rest
