"""The ground all tests stand on."""

from __future__ import annotations

import pytest
from django.core.management import call_command
from django.db import connection

from store.valkey import client


def test_valkey_of_the_test_run_answers() -> None:
    assert client().ping() is True


@pytest.mark.django_db
def test_models_and_migrations_agree() -> None:
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)

    assert connection.vendor in {"sqlite", "postgresql"}
