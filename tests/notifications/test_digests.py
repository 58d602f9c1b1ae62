"""One e-mail a week in place of one for each message."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.core import mail
from django.test import Client
from django.utils import timezone

from store.accounts.models import User
from store.notifications import messages, preferences, tasks
from store.notifications.models import Notification, Topic, WeeklyDigest
from tests import making

pytestmark = pytest.mark.django_db
Kind = Notification.Kind


@pytest.fixture
def ann() -> User:
    user = making.make_user("ann", language="zh-hans")
    preferences.choose_rhythm(user, weekly=True)
    return user


def tell(user: User, kind: Kind = Kind.JOB_SUCCEEDED, key: str = "job:1", job: str = "job_1") -> None:
    messages.notify([user], kind, key=key, params={"job": job}, url="/jobs/job_1/")
    tasks.send_emails(list(Notification.objects.values_list("key", flat=True)))


def a_week_passes() -> None:
    WeeklyDigest.objects.update(told_until=timezone.now() - timedelta(days=7))


def test_a_week_of_messages_comes_as_one_email_in_the_readers_language(ann: User) -> None:
    a_week_passes()
    tell(ann)
    tell(ann, Kind.JOB_FAILED, key="job:2", job="job_2")
    assert mail.outbox == []

    tasks.send_digests()
    tasks.send_digests()

    (message,) = mail.outbox
    html = str(message.alternatives[0][0])
    for said in ("任务 job_1 已完成", "任务 job_2 失败"):
        assert said in message.body
        assert said in html
    assert "/zh-hans/jobs/job_1/" in message.body


def test_who_was_told_nothing_they_want_gets_no_email(ann: User) -> None:
    preferences.choose(ann, [Topic.RATINGS])
    a_week_passes()
    tell(ann)

    tasks.send_digests()

    assert mail.outbox == []
    assert WeeklyDigest.objects.get().told_until > timezone.now() - timedelta(minutes=1)


def test_what_was_said_before_is_not_said_again(ann: User) -> None:
    tell(ann)
    a_week_passes()
    Notification.objects.update(created_at=timezone.now() - timedelta(days=8))

    tasks.send_digests()

    assert mail.outbox == []


def test_the_choice_is_made_with_the_topics_and_taken_back(client: Client) -> None:
    user = making.make_user()
    client.force_login(user)

    client.post("/en/inbox/preferences/", {"topics": [Topic.JOBS], "rhythm": "weekly"})
    assert preferences.is_weekly(user)
    client.post("/en/inbox/preferences/", {"topics": [Topic.JOBS], "rhythm": "each"})
    assert not preferences.is_weekly(user)


def test_the_link_of_the_weekly_email_ends_it_and_brings_no_others(ann: User, client: Client) -> None:
    a_week_passes()
    tell(ann)
    tasks.send_digests()
    link = dict(mail.outbox[0].extra_headers)["List-Unsubscribe"].strip("<>")

    assert client.post("/" + link.split("/", 3)[3]).status_code == 200

    assert preferences.wanted(ann) == []
