"""The pages of a person's batches."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from django.conf import LazySettings
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import AsyncClient, Client
from django.test.utils import CaptureQueriesContext

from store.accounts.models import User
from store.batches import ending, preparing
from store.batches.models import Batch
from store.catalog.models import Version
from store.jobs import claims
from tests import making
from tests.batches.answering import answer_all, begun, claim, fails, file_of, fresh, jobs_of, line_of, says, segment, start

pytestmark = pytest.mark.django_db


@pytest.fixture
def version() -> Version:
    return making.make_prompt()


@pytest.fixture
def user(client: Client) -> User:
    user = making.make_user()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return user


def text(client: Client, path: str) -> str:
    response = client.get(path)
    assert response.status_code == 200
    return response.content.decode()


def test_a_file_is_brought_and_its_batch_begins(client: Client, user: User, version: Version) -> None:
    file = SimpleUploadedFile("questions.jsonl", file_of([line_of("a", version.listing.full_name)]))

    response = client.post("/en/batches/new/", {"file": file})

    batch = Batch.objects.get(user=user)
    assert response["location"] == f"/en/batches/{batch.public_id}/"
    assert (batch.name, batch.state) == ("questions.jsonl", "validating")
    assert "Every line of the file is being checked." in text(client, response["location"])


def test_what_is_wrong_with_a_file_stands_at_its_field(client: Client, user: User, settings: LazySettings) -> None:
    settings.BATCHES_PER_PERSON = 0
    wrong = client.post("/en/batches/new/", {"file": SimpleUploadedFile("a.csv", b"x")})
    too_many = client.post("/en/batches/new/", {"file": SimpleUploadedFile("a.jsonl", b"{}")})

    assert (wrong.status_code, too_many.status_code) == (422, 422)
    assert "JSONL，最多" in text(client, "/zh-hans/batches/new/")
    assert "named something.jsonl" in wrong.content.decode()
    assert "may be under way" in too_many.content.decode()
    assert not Batch.objects.exists()


def test_a_batch_shows_how_far_it_is_and_looks_again_by_itself(client: Client, user: User, version: Version) -> None:
    batch = begun(user, version, 4)
    (job,) = jobs_of(batch)
    claim(job)
    claims.segment(segment(job, only=[1]))

    page = text(client, f"/en/batches/{batch.public_id}/")

    assert 'data-every="3"' in page
    assert 'value="25"' in page
    assert "1 of 4 requests" in page
    assert "Cancel batch" in page


def test_a_batch_that_is_done_offers_its_answers_and_errors(client: Client, user: User, version: Version) -> None:
    batch = answer_all(begun(user, version, 2), say=lambda number, request: (fails if number == 1 else says)(number, request))

    page = text(client, f"/en/batches/{batch.public_id}/")

    assert f"/en/batches/{batch.public_id}/files/results/" in page
    assert f"/en/batches/{batch.public_id}/files/errors/" in page
    assert "data-every" not in page
    assert "Cancel batch" not in page


def test_why_a_batch_failed_is_said_in_the_readers_language(client: Client, user: User, version: Version) -> None:
    failed = start(user, [b" "])
    preparing.prepare(failed.public_id)
    suspended = begun(user, version)
    ending._cancel(suspended, errors=[{"code": "model_not_found", "message": ending.SUSPENDED, "param": "model", "line": None}])

    assert "The file has no requests." in text(client, f"/en/batches/{failed.public_id}/")
    assert ending.SUSPENDED in text(client, f"/en/batches/{suspended.public_id}/")
    assert ending.SUSPENDED not in text(client, f"/zh-hans/batches/{suspended.public_id}/")


def test_a_batch_is_cancelled_from_its_page(client: Client, user: User, version: Version) -> None:
    batch = begun(user, version)

    client.post(f"/en/batches/{batch.public_id}/cancel/")
    again = client.post(f"/en/batches/{batch.public_id}/cancel/", follow=True)

    assert fresh(batch).state == "cancelling"
    assert "is ending already" in again.content.decode()


def test_the_list_costs_as_much_for_many_as_for_one(
    client: Client, user: User, version: Version, settings: LazySettings, django_assert_num_queries: Any
) -> None:
    settings.BATCHES_PER_PERSON = 100
    begun(user, version)
    with CaptureQueriesContext(connection) as for_one:
        text(client, "/en/batches/")

    for _ in range(30):
        start(user, [line_of("a", version.listing.full_name)])

    with django_assert_num_queries(len(for_one)):
        page = text(client, "/en/batches/")
    assert page.count("/en/batches/batch_") == 25
    assert "before=" in page


@pytest.mark.django_db(transaction=True)
def test_the_answers_are_downloaded_by_their_owner_alone(user: User, version: Version) -> None:
    batch = answer_all(begun(user, version, 2))
    path = f"/en/batches/{batch.public_id}/files/results/"

    async def asked(by: User | None, path: str) -> tuple[Any, bytes]:
        client = AsyncClient()
        if by is not None:
            await client.aforce_login(by, backend="django.contrib.auth.backends.ModelBackend")
        response = await client.get(path)
        return response, b"".join([chunk async for chunk in response.streaming_content]) if response.streaming else b""

    own, content = asyncio.run(asked(user, path))

    assert [line["custom_id"] for line in map(json.loads, content.splitlines())] == ["id-1", "id-2"]
    assert own["content-disposition"] == f'attachment; filename="{batch.public_id}_output.jsonl"'
    assert asyncio.run(asked(None, path))[0].status_code == 302
    assert asyncio.run(asked(making.make_user(), path))[0].status_code == 404
    assert asyncio.run(asked(user, path.replace("results", "errors")))[0].status_code == 404  # there were none
    assert asyncio.run(asked(user, path.replace("results", "secrets")))[0].status_code == 404
