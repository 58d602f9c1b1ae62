"""What a first start needs and a second start finds done: tables, static files, a real model, demo content."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from django.conf import settings
from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor


def prepare(say: Callable[[str], None]) -> None:
    """Runs each step that is not done yet, saying what and how long. Safe to run again."""
    for step in (_migrate, _collect_static, _import_and_seed):
        began = time.monotonic()
        if what := step(say):
            say(f"{what} ({time.monotonic() - began:.1f} s)")


def _migrate(say: Callable[[str], None]) -> str:
    executor = MigrationExecutor(connection)
    if not executor.migration_plan(executor.loader.graph.leaf_nodes()):
        return ""
    say("preparing the database …")
    call_command("migrate", interactive=False, verbosity=0)
    return "the database is up to date"


def _collect_static(say: Callable[[str], None]) -> str:
    """Skipped while no source file is newer than the last collection."""
    stamp = settings.VAR_DIR / "static-collected"
    sources = [Path(folder) for folder in settings.STATICFILES_DIRS]
    newest = max((path.stat().st_mtime for folder in sources for path in folder.rglob("*")), default=0.0)
    if stamp.exists() and stamp.stat().st_mtime > newest and settings.STATIC_ROOT.exists():
        return ""
    call_command("collectstatic", interactive=False, verbosity=0)
    stamp.touch()
    return "static files are collected"


def _import_and_seed(say: Callable[[str], None]) -> str:
    if not settings.DEMO:
        return ""
    call_command("seed_demo", verbosity=1)
    return "the demo is in place"
