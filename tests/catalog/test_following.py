"""Following a GPT or a publisher, and being told of what they publish: once for each version, whatever is repeated."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.db import IntegrityError, connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from store.accounts.models import User
from store.catalog import announcing, following, listings
from store.catalog.models import Follow, Version
from store.errors import NotFound
from store.moderation import decisions
from store.notifications import tasks
from store.notifications.models import Notification
from tests import making
from tests.moderation import acting

pytestmark = pytest.mark.django_db
Kind = Notification.Kind


@pytest.fixture
def live() -> Version:
    """Published, and announced to nobody."""
    version = making.make_prompt(making.make_base(), making.make_listing(making.make_publisher(slug="lab"), slug="poet"))
    announcing.announce_missed()
    return version


def follower(version: Version, name: str = "", **fields: Any) -> User:
    user = making.make_user(name, **fields)
    following.follow_listing(user, version.listing)
    return user


def next_version(version: Version, number: str = "1.1.0", **fields: Any) -> Version:
    return making.make_prompt(version.base, version.listing, number=number, change_log="Rhymes better.", **fields)


def test_who_follows_is_told_once_on_the_site_and_by_email_in_their_language(live: Version) -> None:
    ann, bo = follower(live, "ann"), follower(live, "bo", language="zh-hans")
    following.follow_publisher(ann, live.listing.publisher)
    making.make_user("stranger")

    new = next_version(live)
    told = [announcing.announce(new.public_id) for _ in range(2)] + [announcing.announce_missed()]
    for _ in range(2):
        tasks.send_emails(list(Notification.objects.values_list("key", flat=True)))

    assert told == [2, 0, 0]
    assert {row.user: row.url for row in Notification.objects.all()} == dict.fromkeys((ann, bo), "/gpts/lab/poet/versions/#v1.1.0")
    english, chinese = sorted(mail.outbox, key=lambda message: message.to)
    assert english.subject == "lab/poet@1.1.0 is a new version of a GPT that you follow."
    assert "Rhymes better." in english.body
    assert "http://127.0.0.1:8000/en/gpts/lab/poet/versions/#v1.1.0" in english.body
    assert "lab/poet@1.1.0" in chinese.subject
    assert "新版本" in chinese.subject
    assert len(mail.outbox) == 2


def test_a_first_version_is_told_as_a_new_gpt_to_who_follows_the_publisher(live: Version) -> None:
    fan = making.make_user()
    following.follow_publisher(fan, live.listing.publisher)

    new = making.make_prompt(live.base, making.make_listing(live.listing.publisher, slug="novelist"))
    announcing.announce(new.public_id)

    (told,) = Notification.objects.filter(user=fan)
    assert told.kind == Kind.GPT_PUBLISHED


def test_what_is_unlisted_is_told_to_who_follows_it_and_not_to_who_follows_the_publisher(live: Version) -> None:
    fan = making.make_user()
    following.follow_publisher(fan, live.listing.publisher)
    hidden = making.release(making.draft_prompt(live.base, making.make_listing(live.listing.publisher, slug="hidden")), "unlisted")
    who_knows = follower(hidden)

    announcing.announce(hidden.public_id)

    assert [row.user for row in Notification.objects.all()] == [who_knows]


@pytest.mark.parametrize("state", ["draft", "suspended", "base suspended", "old", "left"])
def test_nobody_is_told_of_what_cannot_be_used_or_is_long_known(live: Version, state: str) -> None:
    user = follower(live)
    new = making.draft_prompt(live.base, live.listing, number="1.1.0") if state == "draft" else next_version(live)
    if state == "suspended":
        making.publishing.suspend(new)
    if state == "base suspended":
        making.publishing.suspend(new.base)
    if state == "old":
        Version.objects.filter(pk=new.pk).update(released_at=timezone.now() - timedelta(days=8))
    if state == "left":
        User.objects.filter(pk=user.pk).update(is_active=False)

    assert announcing.announce(new.public_id) == 0
    assert not Notification.objects.exists()


def test_an_approval_has_the_store_announce_it_after_the_commit(
    live: Version, monkeypatch: pytest.MonkeyPatch, django_capture_on_commit_callbacks: Any
) -> None:
    new = making.draft_prompt(live.base, live.listing, number="1.1.0")
    submission = acting.pass_checks(acting.submit(new))
    sent: list[str] = []
    monkeypatch.setattr(listings.announce, "delay", sent.append)
    monkeypatch.setattr(tasks.send_emails, "delay", lambda keys: None)  # the author's notice of the approval

    with django_capture_on_commit_callbacks() as on_commit:
        decisions.approve(making.make_reviewer(), submission)
    before = list(sent)
    for callback in on_commit:
        callback()

    assert (before, sent) == ([], [new.public_id])


def test_what_the_broker_lost_is_announced_by_beat(live: Version) -> None:
    user = follower(live)
    next_version(live)

    assert announcing.announce_missed() == 1
    assert announcing.announce_missed() == 0
    assert Notification.objects.filter(user=user).count() == 1


def test_many_followers_are_told_in_slices(live: Version, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcing, "SLICE", 2)
    users = [follower(live) for _ in range(5)]

    assert announcing.announce(next_version(live).public_id) == 5
    assert {row.user for row in Notification.objects.all()} == set(users)


def test_following_is_kept_once_and_has_an_end(live: Version, monkeypatch: pytest.MonkeyPatch) -> None:
    user = follower(live)
    assert following.follow_listing(user, live.listing) == user.follows.get()

    monkeypatch.setattr(following, "MOST", 1)
    with pytest.raises(following.EnoughFollowed):
        following.follow_publisher(user, live.listing.publisher)
    with pytest.raises(NotFound):
        following.stop(making.make_user(), user.follows.get().public_id)
    with pytest.raises(NotFound):
        following.follow_listing(user, making.make_listing())
    with pytest.raises(IntegrityError), transaction.atomic():
        Follow.objects.create(user=user)
    assert user.follows.count() == 1


# ---------------------------------------------------------------- pages


def test_a_person_follows_and_stops_on_the_pages(live: Version) -> None:
    user, client = making.make_user(), Client()
    page = "/en/gpts/lab/poet/"
    assert "Sign in to follow Poet" in client.get(page).text
    client.force_login(user)

    client.post(f"{page}follow/")
    client.post("/en/publishers/lab/follow/")
    shown = client.get(page).text
    own = {bool(row.listing): row.public_id for row in user.follows.all()}
    listed = client.get("/en/following/").text

    assert "Stop following Poet" in shown
    assert "You follow Lab." in shown
    assert "Stop following Lab" in client.get("/en/publishers/lab/").text
    assert "Stop following lab/poet" in listed
    assert client.post(f"/en/following/{own[True]}/stop/", {"from": "page"})["Location"] == page
    assert client.post(f"/en/following/{own[False]}/stop/")["Location"] == "/en/following/"
    assert "You follow nothing yet" in client.get("/en/following/").text


def test_what_was_taken_down_is_still_in_the_list_to_be_left(live: Version) -> None:
    client = Client()
    client.force_login(follower(live))
    making.listings.suspend(live.listing)

    shown = client.get("/en/following/").text

    assert "It can't be reached at the moment." in shown
    assert "/en/gpts/lab/poet/" not in shown


def test_a_long_list_costs_as_many_queries_as_a_short_one(live: Version) -> None:
    client, user = Client(), follower(live)
    client.force_login(user)
    counts = []
    for more in (1, 8):
        for _ in range(more):
            following.follow_listing(user, making.make_prompt(live.base).listing)
            following.follow_publisher(user, making.make_publisher())
        with CaptureQueriesContext(connection) as queries:
            assert client.get("/en/following/").status_code == 200
        counts.append(len(queries))

    assert counts[0] == counts[1]
