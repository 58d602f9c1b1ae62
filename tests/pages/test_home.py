"""Home: what is featured, trending and new, what a person continues, and what is kept of it for how long."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
import time_machine
from django.conf import LazySettings
from django.core.cache import cache, caches
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from store.catalog import listings, search
from store.catalog.models import Listing, Version
from store.generation.models import Request
from store.pages import front
from store.playground.models import Conversation
from store.valkey import client as valkey
from tests import making

pytestmark = pytest.mark.django_db


@pytest.fixture
def base() -> Version:
    return making.make_base(slug="small-base")


def two(base: Version) -> tuple[Listing, Listing]:
    return making.make_prompt(base).listing, making.make_prompt(base).listing


def test_home_is_made_once_for_all_visitors_and_anew_within_a_minute(client: Client, base: Version) -> None:
    two(base)
    first = client.get("/en/").text

    with CaptureQueriesContext(connection) as queries:
        assert client.get("/en/").text == Client().get("/en/").text == first

    assert len(queries) == 0
    assert "Cookie" in Client().get("/en/")["Vary"]
    assert not re.search(r"csrfmiddlewaretoken|nonce=", first)
    assert 0 < valkey().ttl(next(valkey().scan_iter("*home:en*"))) <= front.SHELVES_S <= 60
    assert '<html lang="zh-Hans">' in client.get("/zh-hans/").text
    assert client.get("/en/").text == first


def test_what_is_curated_and_what_is_suspended_changes_home_when_it_is_made_again(client: Client, base: Version) -> None:
    first, second = two(base)
    Listing.objects.filter(pk=second.pk).update(featured=1)
    cards = re.compile(r'<article class="listing-card">.*?href="/en/gpts/([^"]*)/"', re.DOTALL)

    assert cards.findall(client.get("/en/").text) == [second.full_name]
    listings.suspend(second)
    cache.clear()

    page = client.get("/en/").text
    assert second.full_name not in page
    assert first.full_name in page


def test_a_signed_in_person_continues_where_they_were_and_nobody_else_sees_it(client: Client, base: Version) -> None:
    person = making.make_user()
    Conversation.objects.create(version=base, user=person, title="My letter to the harbour")
    Conversation.objects.create(version=base, user=making.make_user(), title="Of somebody else")
    client.force_login(person)

    own = client.get("/en/").text

    assert "My letter to the harbour" in own
    assert "Of somebody else" not in own
    for _made, _kept in ((1, 0), (0, 1)):
        assert "My letter to the harbour" not in Client().get("/en/").text


def test_trending_is_what_is_used_now_and_says_how_often(client: Client, base: Version) -> None:
    old, new = two(base)
    for listing, days, times in ((old, 60, 200), (new, 0, 3)):
        with time_machine.travel(timezone.now() - timedelta(days=days), tick=False):
            search.used(listing.pk, times)
            request = Request.objects.create(version=listing.current_version, source="api", state="finished", deadline_at=timezone.now())
            Request.objects.filter(pk=request.pk).update(created_at=timezone.now())

    page = client.get("/en/").text

    assert re.findall(r'<li class="listing-row ranked">.*?href="/en/gpts/([^"]*)/"', page, re.DOTALL) == [new.full_name]
    assert "1 answer this week" in page


def test_home_answers_without_its_cache(client: Client, base: Version, valkey_away: None, settings: LazySettings) -> None:
    two(base)
    settings.CACHES = {"default": {**settings.CACHES["default"], "LOCATION": settings.REDIS_URL}}
    assert "127.0.0.1:1/" in caches.settings["default"]["LOCATION"]

    assert client.get("/en/").status_code == 200


def test_home_of_a_person_costs_the_same_however_much_there_is(client: Client, base: Version) -> None:
    person = making.make_user()
    client.force_login(person)
    counts = []
    for more in (2, 12):
        for _ in range(more):
            version = making.make_prompt(base)
            search.used(version.listing_id)
            Conversation.objects.create(version=version, user=person, title="A talk")
            Request.objects.create(version=version, source="api", state="finished", deadline_at=timezone.now())
        cache.clear()
        with CaptureQueriesContext(connection) as queries:
            client.get("/en/")
        counts.append(len(queries))

    assert counts[0] == counts[1] <= 40
