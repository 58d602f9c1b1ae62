import hashlib
from datetime import timedelta

import pytest
import time_machine
from django.core.management import call_command
from django.core.management.base import CommandError
from django.utils import timezone

from store.accounts import keys
from store.accounts.models import ApiKey, AuditEntry, User
from store.errors import NotFound

pytestmark = pytest.mark.django_db


@pytest.fixture
def lin() -> User:
    return User.objects.create_user("lin", "lin@example.org", "a long password")


def test_a_key_is_found_by_its_secret_and_only_its_hash_is_kept(lin: User) -> None:
    key, secret = keys.create_key(lin, name=" laptop ")

    row = ApiKey.objects.get()
    assert secret.startswith(key.prefix + "_")
    assert len(secret) == 54
    assert row.name == "laptop"
    assert row.digest == hashlib.sha256(secret.encode()).hexdigest()
    assert secret not in str(ApiKey.objects.values().get())
    assert keys.find_key(secret) == key
    assert AuditEntry.objects.get().action == "api_key.create"


@pytest.mark.parametrize("name", ["", "   ", "x" * 61, "two\nlines"])
def test_a_key_without_a_usable_name_is_refused(lin: User, name: str) -> None:
    with pytest.raises(keys.InvalidKeyName):
        keys.create_key(lin, name=name)

    assert not ApiKey.objects.exists()


def test_a_secret_that_differs_in_one_character_opens_nothing(lin: User) -> None:
    _key, secret = keys.create_key(lin, name="laptop")

    assert keys.find_key(secret[:-1] + ("a" if secret[-1] != "a" else "b")) is None
    assert keys.find_key(secret + "a") is None
    assert keys.find_key("") is None


def test_a_revoked_key_and_one_of_an_inactive_user_open_nothing(lin: User) -> None:
    revoked, first = keys.create_key(lin, name="first")
    _other, second = keys.create_key(lin, name="second")

    keys.revoke_key(lin, revoked)
    keys.revoke_key(lin, revoked)

    assert keys.find_key(first) is None
    assert AuditEntry.objects.filter(action="api_key.revoke").count() == 1
    User.objects.filter(pk=lin.pk).update(is_active=False)
    assert keys.find_key(second) is None


def test_a_stranger_cannot_revoke_a_key(lin: User) -> None:
    key, secret = keys.create_key(lin, name="laptop")
    stranger = User.objects.create_user("mo", "mo@example.org")

    with pytest.raises(NotFound):
        keys.revoke_key(stranger, key)

    assert keys.find_key(secret) == key


def test_the_time_of_last_use_is_written_at_most_every_five_minutes(lin: User) -> None:
    key, secret = keys.create_key(lin, name="laptop")
    start = timezone.now()

    with time_machine.travel(start, tick=False):
        keys.find_key(secret)
    with time_machine.travel(start + timedelta(minutes=4), tick=False):
        keys.find_key(secret)
    key.refresh_from_db()
    assert key.last_used_at == start

    with time_machine.travel(start + timedelta(minutes=6), tick=False):
        keys.find_key(secret)
    key.refresh_from_db()
    assert key.last_used_at == start + timedelta(minutes=6)


def test_the_command_prints_a_key_and_nothing_else(lin: User, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("create_api_key", "lin", name="nightly script")

    secret = capsys.readouterr().out.strip()
    found = keys.find_key(secret)
    assert found is not None
    assert found.user == lin
    assert found.name == "nightly script"


def test_the_command_says_when_there_is_no_such_user() -> None:
    with pytest.raises(CommandError, match="There is no user 'nobody'"):
        call_command("create_api_key", "nobody")
