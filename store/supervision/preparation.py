"""What a first start needs and a second start finds done: tables, static files, a real model, demo content."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import django
from django.conf import settings
from django.contrib.staticfiles.finders import get_finders
from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from store.pages.demo import people

Say = Callable[[str], None]


def prepare(say: Say) -> bool:
    """Runs each step that is not done yet, saying what and how long. Safe to run again.

    True when the people of the demo are new, so that somebody has to be told their passwords.
    """
    _timed(_migrate, say)
    _timed(_collect_static, say)
    if not settings.DEMO:
        return False
    new = not people.are_there()
    _timed(_import_and_seed, say)
    return new


def _timed(step: Callable[[Say], str], say: Say) -> None:
    began = time.monotonic()
    if what := step(say):
        say(f"{what} ({time.monotonic() - began:.1f} s)")


def _migrate(say: Say) -> str:
    executor = MigrationExecutor(connection)
    if not executor.migration_plan(executor.loader.graph.leaf_nodes()):
        executor.check_replacements()  # what was applied step by step counts as squashed, so that the steps can go one day
        return ""
    say("preparing the database …")
    call_command("migrate", interactive=False, verbosity=0)
    return "the database is up to date"


def _collect_static(say: Say) -> str:
    """Skipped while what would be collected is what was collected last: our own files and those of Django and other packages."""
    mark = settings.VAR_DIR / "static-collected"
    found = _static_sources()
    if mark.exists() and mark.read_text() == found and settings.STATIC_ROOT.exists():
        return ""
    call_command("collectstatic", interactive=False, verbosity=0)
    mark.write_text(found)
    return "static files are collected"


def _static_sources() -> str:
    """A digest of every file's name, size and time, and of who keeps them."""
    keeper = f"{django.get_version()} {settings.STORAGES['staticfiles']['BACKEND']}"
    files = ((path, Path(storage.path(path)).stat()) for finder in get_finders() for path, storage in finder.list([]))
    lines = sorted(f"{path} {stat.st_size} {stat.st_mtime_ns}" for path, stat in files)
    return hashlib.sha256("\n".join([keeper, *lines]).encode()).hexdigest()


def _import_and_seed(say: Say) -> str:
    call_command("seed_demo", verbosity=1)
    return "the demo is in place"
