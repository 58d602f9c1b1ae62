"""What a start prepares: static files once, until something about them changes."""

from __future__ import annotations

import os
from pathlib import Path

import django
import pytest
from django.conf import LazySettings

from store.supervision.preparation import _collect_static


@pytest.fixture(autouse=True)
def source(settings: LazySettings, tmp_path: Path) -> Path:
    """A file of ours, already collected together with those of Django's admin."""
    settings.VAR_DIR = tmp_path
    settings.STATIC_ROOT = tmp_path / "static"
    settings.STATICFILES_DIRS = [tmp_path / "ours"]
    source = tmp_path / "ours" / "site.css"
    source.parent.mkdir()
    source.write_text("a {}")
    assert _collect_static(print) == "static files are collected"
    return source


def test_what_is_collected_is_not_collected_again(settings: LazySettings) -> None:
    assert (settings.STATIC_ROOT / "site.css").exists()
    assert (settings.STATIC_ROOT / "admin" / "css" / "base.css").exists()
    assert _collect_static(print) == ""


def test_a_changed_file_is_collected_also_when_it_is_older(source: Path) -> None:
    source.write_text("b {}")
    os.utime(source, (1e9, 1e9))

    assert _collect_static(print) == "static files are collected"


def test_another_django_brings_files_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(django, "get_version", lambda: "5.2.99")

    assert _collect_static(print) == "static files are collected"
    assert _collect_static(print) == ""


def test_files_that_were_removed_are_collected_again(settings: LazySettings) -> None:
    settings.STATIC_ROOT = settings.VAR_DIR / "elsewhere"

    assert _collect_static(print) == "static files are collected"
