"""Which messages come by e-mail: chosen on a page, or stopped by the signed link of an e-mail."""

from __future__ import annotations

import pytest
from django.core import mail
from django.test import Client

from store.accounts.models import User
from store.errors import NotFound
from store.notifications import messages, preferences, tasks
from store.notifications.models import EmailOptOut, Notification, Topic
from tests import making

pytestmark = pytest.mark.django_db
Kind = Notification.Kind


@pytest.fixture
def ann() -> User:
    return making.make_user("ann")


def tell(user: User, kind: Kind = Kind.JOB_SUCCEEDED, key: str = "job:1") -> None:
    messages.notify([user], kind, key=key, params={"job": "job_1"})
    tasks.send_emails(list(Notification.objects.values_list("key", flat=True)))


def link(email: object) -> str:
    """The path of the link in an e-mail that ends e-mails like it."""
    (header,) = [value for name, value in email.extra_headers.items() if name == "List-Unsubscribe"]  # type: ignore[attr-defined]
    return str(header).strip("<>").removeprefix("http://127.0.0.1:8000")


def test_every_kind_belongs_to_a_topic() -> None:
    assert set(preferences.TOPICS) == set(Kind.values)


def test_what_a_person_does_not_want_by_email_is_in_the_inbox_alone(ann: User) -> None:
    client = Client()
    client.force_login(ann)

    client.post("/en/inbox/preferences/", {"topics": [Topic.REVIEWS, Topic.RATINGS]})
    tell(ann)
    tell(ann, Kind.RATING_REPLY, key="rating:1")

    assert [message.subject for message in mail.outbox] == ["replied to your rating of job_1."]
    assert messages.unread_count(ann) == 2
    assert not Notification.objects.filter(emailed_at__isnull=True).exists()  # and none is tried again
    assert preferences.wanted(ann) == [Topic.REVIEWS, Topic.RATINGS]
    client.post("/en/inbox/preferences/", {"topics": list(Topic.values)})
    assert not EmailOptOut.objects.exists()


@pytest.mark.parametrize("topics", [["nothing"], [""], ["jobs", "x" * 5000], ["\x00"]])
def test_only_topics_can_be_chosen(ann: User, topics: list[str]) -> None:
    client = Client()
    client.force_login(ann)

    assert client.post("/en/inbox/preferences/", {"topics": topics}).status_code == 422
    assert not EmailOptOut.objects.exists()


def test_the_link_of_an_email_asks_and_then_ends_emails_like_it(ann: User) -> None:
    tell(ann)
    (message,) = mail.outbox
    visitor = Client(enforce_csrf_checks=True)

    asked = visitor.get(link(message))
    assert asked.status_code == 200
    assert not asked.cookies
    assert not EmailOptOut.objects.exists()  # a program that looked at the link has changed nothing
    done = visitor.post(link(message), {"List-Unsubscribe": "One-Click"})
    visitor.post(link(message))

    assert "No more of these e-mails" in done.text
    assert message.extra_headers["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert link(message) in message.body
    assert link(message) in str(message.alternatives[0][0])  # type: ignore[attr-defined]
    assert [(row.user, row.topic) for row in EmailOptOut.objects.all()] == [(ann, Topic.JOBS)]
    tell(ann, key="job:2")
    assert len(mail.outbox) == 1


def test_the_link_speaks_the_readers_language(ann: User) -> None:
    User.objects.filter(pk=ann.pk).update(language="zh-hans")
    tell(User.objects.get(pk=ann.pk))

    (message,) = mail.outbox
    assert link(message).startswith("/zh-hans/inbox/unsubscribe/")
    assert "不再接收这类邮件" in message.body
    assert "不再接收这类邮件" in Client().get(link(message)).text


@pytest.mark.parametrize("token", ["x", "x:y:z", "%E2%80%AE", "a" * 5000])
def test_a_link_that_was_not_signed_here_does_nothing(ann: User, token: str) -> None:
    for method in (Client().get, Client().post):
        assert method(f"/en/inbox/unsubscribe/{token}/").status_code == 404

    with pytest.raises(NotFound):
        preferences.read_token(preferences.token(ann, Topic.JOBS)[:-1])
    token_of_nobody = preferences.token(User(public_id="usr_gone"), Topic.JOBS)
    with pytest.raises(NotFound):
        preferences.read_token(token_of_nobody)
    assert not EmailOptOut.objects.exists()
