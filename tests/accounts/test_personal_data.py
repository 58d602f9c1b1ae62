"""One's data: all of it in the export, none of it after the account is deleted but what others rely on."""

from __future__ import annotations

import io
import json
import zipfile
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.apps import apps
from django.core import mail
from django.test import Client
from django.utils import timezone

from store.accounts import erasure, exporting, keys, personal_data
from store.accounts.models import AuditEntry, Membership, User
from store.accounts.tasks import send_erased, send_erasure_asked
from store.billing import ledger
from store.catalog import collections
from store.catalog.models import Version
from store.generation.models import Request
from store.playground.models import Conversation, Message
from store.ratings import rating, votes
from store.ratings.models import Rating, RatingSummary
from tests import making

pytestmark = pytest.mark.django_db
PASSWORD = "correct horse 9"


@pytest.fixture
def version() -> Version:
    return making.make_prompt(listing=making.make_listing(making.make_publisher(slug="lab"), "letters"))


@pytest.fixture
def person(version: Version) -> User:
    """Who has left something everywhere."""
    user = making.make_user("wanda")
    making.confirm_address(user)
    asked = {"version": version, "user": user, "source": "chat", "state": "finished", "completion_tokens": 3, "deadline_at": timezone.now()}
    request = Request.objects.create(**asked)
    conversation = Conversation.objects.create(version=version, user=user, title="Secret plans")
    Message.objects.create(conversation=conversation, role="user", text="写一封信", request=request)
    rating.rate(user, version.listing, stars=5, text="It wrote my letter.")
    collections.create(user, name="Mine")
    keys.create_key(user, name="laptop")
    ledger.grant(None, user, 1_000_000, cause="grant:wanda")
    return user


def test_every_table_that_points_to_a_person_says_what_becomes_of_it() -> None:
    pointing = {
        (model._meta.label, field.name)
        for model in apps.get_models()
        for field in model._meta.concrete_fields
        if field.related_model is User
    }
    declared = {(holding.model, holding.path) for holding in personal_data.holdings()}

    assert pointing - declared == set()


def test_the_export_holds_every_table_and_no_hash(person: User) -> None:
    with exporting.write(person) as file, zipfile.ZipFile(file) as archive:
        found: dict[str, Any] = {name: json.loads(archive.read(name)) for name in archive.namelist()}

    assert len(found) == len(personal_data.holdings()) + 1
    assert [row["text"] for row in found["playground.message.conversation__user.json"]] == ["写一封信"]
    assert found["accounts.user.pk.json"][0]["email"] == "wanda@example.org"
    assert found["ratings.rating.user.json"][0]["listing"] == person.ratings.get().listing.public_id
    assert found["generation.request.user.json"][0]["completion_tokens"] == 3
    everything = json.dumps(found)
    assert person.password not in everything
    assert person.api_keys.get().digest not in everything


def test_the_export_is_for_its_owner_who_just_said_who_they_are(client: Client, person: User) -> None:
    client.force_login(person, backend="django.contrib.auth.backends.ModelBackend")

    asked = client.get("/en/account/privacy/export/")
    client.post("/en/account/reauthenticate/", {"password": PASSWORD})
    given = client.get("/en/account/privacy/export/")

    assert asked.status_code == 302
    assert "/reauthenticate/" in asked["Location"]
    assert given["Content-Type"] == "application/zip"
    assert zipfile.ZipFile(io.BytesIO(async_to_sync(_read)(given))).testzip() is None


async def _read(response: Any) -> bytes:
    return b"".join([chunk async for chunk in response.streaming_content])


def test_an_account_is_deleted_two_weeks_after_it_was_asked_for_and_not_if_it_is_kept(client: Client, person: User) -> None:
    client.force_login(person, backend="django.contrib.auth.backends.ModelBackend")
    client.post("/en/account/reauthenticate/", {"password": PASSWORD})

    mistyped = client.post("/en/account/privacy/delete/", {"username": "wand"})
    asked = client.post("/en/account/privacy/delete/", {"username": "wanda"})
    before = erasure.erase_due()
    client.post("/en/account/privacy/keep/")
    person.refresh_from_db()

    assert (mistyped.status_code, asked.status_code, before) == (400, 302, 0)
    assert person.erasure_due_at is None
    assert [entry.action for entry in AuditEntry.objects.filter(action__startswith="user.")] == ["user.keep_account", "user.ask_erasure"]


def test_what_is_left_names_nobody_and_the_books_still_sum_up(person: User, version: Version) -> None:
    other = making.make_user()
    Request.objects.create(version=version, user=other, source="chat", state="finished", completion_tokens=3, deadline_at=timezone.now())
    theirs = rating.rate(other, version.listing, stars=1)
    votes.vote(person, theirs)
    User.objects.filter(pk=person.pk).update(erasure_due_at=timezone.now() - timedelta(minutes=1))

    erased = erasure.erase_due()

    person.refresh_from_db()
    assert erased == 1
    assert not person.is_active
    assert "wanda" not in f"{person.username} {person.email} {person.first_name}"
    kept = {holding.model for holding in personal_data.holdings() if holding.kept}
    left = {holding.model for holding in personal_data.holdings() if holding.rows(person).exists()}
    assert left <= kept
    assert ledger.wallet_of(person).balance_micro == 1_000_000
    assert not Message.objects.filter(conversation__title="Secret plans").exists()
    summary = RatingSummary.objects.get(listing=version.listing)
    assert (summary.count, summary.total) == (1, 1)
    assert Rating.objects.get(pk=theirs.pk).helpful_count == 0
    assert erasure.erase_due() == 0


def test_who_owns_a_publisher_alone_is_told_what_to_do_first(client: Client, version: Version) -> None:
    publisher = version.listing.publisher
    owner = making.owner_of(publisher)
    client.force_login(owner, backend="django.contrib.auth.backends.ModelBackend")
    client.post("/en/account/reauthenticate/", {"password": PASSWORD})

    page = client.get("/en/account/privacy/delete/").text
    with pytest.raises(erasure.OwnsPublishers):
        erasure.ask(owner)
    making.join(publisher, Membership.Role.OWNER)
    erasure.ask(owner)

    assert "/en/account/publishers/lab/members/" in page
    owner.refresh_from_db()
    assert owner.erasure_due_at is not None


def test_nobody_is_erased_while_an_answer_is_under_way(person: User, version: Version) -> None:
    soon = timezone.now() + timedelta(minutes=1)
    under_way = Request.objects.create(version=version, user=person, source="chat", deadline_at=soon)

    assert not erasure.erase(person)
    Request.objects.filter(pk=under_way.pk).update(state="finished")
    assert erasure.erase(person)


def test_who_operates_the_store_stays() -> None:
    with pytest.raises(erasure.OperatesTheStore):
        erasure.ask(making.make_user(is_staff=True))


@pytest.mark.parametrize(("language", "asked", "done"), [("en", "will be deleted", "is deleted"), ("zh-hans", "将被删除", "已删除")])
def test_the_letters_are_in_the_readers_language(person: User, language: str, asked: str, done: str) -> None:
    User.objects.filter(pk=person.pk).update(erasure_due_at=timezone.now(), language=language)

    send_erasure_asked(person.public_id)
    send_erased("wanda@example.org", language)

    for message, word in zip(mail.outbox, (asked, done), strict=True):
        assert word in message.subject
        html = message.alternatives[0][0]  # type: ignore[attr-defined]
        assert word in html
    assert f"/{language}/account/privacy/" in mail.outbox[0].body
