"""How a GPT is used: what the page and the CSV count, for whom, and in how many queries."""

from __future__ import annotations

import csv
from datetime import timedelta

import pytest
from asgiref.sync import async_to_sync
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from store.accounts.models import User
from store.catalog import views
from store.catalog.models import Version
from store.generation.models import Request
from store.pages import analytics
from store.ratings.models import Rating
from tests import making

pytestmark = pytest.mark.django_db


def ask(version: Version, source: str, *, user: User | None = None, days_ago: int = 0, visitor: str = "") -> None:
    asked = Request.objects.create(
        version=version, source=source, user=user, visitor=visitor, prompt_tokens=10, completion_tokens=3, deadline_at=timezone.now()
    )
    Request.objects.filter(pk=asked.pk).update(created_at=timezone.now() - timedelta(days=days_ago))


@pytest.fixture
def used() -> Version:
    """Tried by a visitor and two people, one of whom came back; and once long ago. A neighbour was used as well."""
    version, lin, mo = making.make_prompt(), making.make_user(), making.make_user()
    ask(version, "try", visitor="v1")
    ask(version, "try", user=mo)
    ask(version, "try", user=lin, days_ago=2)
    ask(version, "embed", visitor="v2")
    ask(version, "api", user=lin)
    ask(version, "chat", user=lin)
    ask(version, "chat", user=lin, days_ago=40)
    ask(making.make_prompt(version.base), "api", user=lin)
    Rating.objects.create(listing=version.listing, version=version, user=lin, stars=4)
    Rating.objects.create(listing=version.listing, version=version, user=mo, stars=1, hidden_at=timezone.now())
    Rating.objects.create(listing=version.listing, version=version, user=making.make_user(), stars=1, withdrawn_at=timezone.now())
    return version


def test_every_day_has_its_numbers(used: Version) -> None:
    use = analytics.use_of(used.listing, days=7)

    today, before = use.days[-1], use.days[-3]
    assert (len(use.days), today.day) == (7, timezone.localdate())
    assert (today.requests, today.tries, today.embedded, today.chats, today.api, today.people) == (5, 2, 1, 1, 1, 2)
    assert (today.input_tokens, today.output_tokens, today.ratings, today.stars) == (50, 15, 1, 4)
    assert (before.requests, before.tries, before.people) == (1, 1, 1)
    assert (use.total["requests"], use.people) == (6, 2)
    assert (use.tried, use.stayed, use.rated) == (3, 1, 1)
    assert analytics.use_of(used.listing, days=90).total["requests"] == 7


def test_a_gpt_that_nobody_used_is_all_noughts(client: Client) -> None:
    version = making.make_prompt()
    client.force_login(making.owner_of(version.listing.publisher))

    use = analytics.use_of(version.listing, days=30)

    assert (len(use.days), sum(use.total.values())) == (30, 0)
    assert use.percent == {"tried": None, "stayed": None, "rated": None}
    assert client.get(f"/en/studio/gpts/{version.listing.full_name}/analytics/?days=x").status_code == 200


def test_members_read_it_as_a_page_and_as_csv(client: Client, used: Version) -> None:
    at = f"/zh-hans/studio/gpts/{used.listing.full_name}/analytics/"
    client.force_login(making.join(used.listing.publisher, "member"))

    page, table = client.get(f"{at}?days=7"), client.get(f"{at}csv/?days=7")

    assert page.status_code == 200
    assert page.text.count('<th scope="row">') == 2  # days with use
    assert page.text.count('<rect class="day"') == 7
    assert page.text.count("占试用者的 33.3%") == 2
    assert table["Content-Type"] == "text/csv; charset=utf-8"
    head, *days = csv.reader(table.text.splitlines())
    assert head == ["day", *analytics.COUNTED, "mean_stars"]
    assert days[-1] == [timezone.localdate().isoformat(), "0", "5", "2", "1", "1", "1", "2", "50", "15", "1", "4.0"]


def test_a_view_of_its_page_is_one_by_a_person_who_is_not_of_its_publisher_and_counts_once(client: Client, used: Version) -> None:
    page, browser = f"/en/gpts/{used.listing.full_name}/", {"user-agent": "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"}
    member = Client()
    member.force_login(making.owner_of(used.listing.publisher))

    for _ in range(2):
        client.get(page, headers=browser)
    client.head(page, headers=browser)
    client.get(page, headers=browser | {"sec-purpose": "prefetch"})
    client.get(page, headers={"user-agent": "Mozilla/5.0 (compatible; Googlebot/2.1)"})
    member.get(page, headers=browser)
    brought = [views.bring(), views.bring()]
    for agent in (browser["user-agent"].encode(), b"Googlebot/2.1"):  # of pages that are kept for visitors
        async_to_sync(views.count_kept)(used.listing.full_name, {b"user-agent": agent})
    views.bring()

    assert brought == [2, 0]
    use = analytics.use_of(used.listing, days=7)
    assert [day.views for day in use.days] == [0] * 6 + [3]
    assert use.percent == {"tried": 100, "stayed": pytest.approx(100 / 3), "rated": pytest.approx(100 / 3)}


def test_ninety_days_cost_as_many_queries_as_seven(used: Version) -> None:
    counts = []
    for days in (7, 90):
        with CaptureQueriesContext(connection) as queries:
            analytics.use_of(used.listing, days=days)
        counts.append(len(queries))

    assert counts[0] == counts[1]
