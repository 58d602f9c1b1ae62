"""Who is told what, in which language, and how often."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.core.mail.backends.locmem import EmailBackend
from django.test import Client
from django.utils import timezone, translation

from store.accounts.models import User
from store.notifications import emails, messages, tasks
from store.notifications.models import Notification
from store.notifications.sentences import SENTENCES, quote, sentence

pytestmark = pytest.mark.django_db
Kind = Notification.Kind


@pytest.fixture
def ann() -> User:
    return User.objects.create_user("ann", "ann@example.com", "a long password", language="en")


@pytest.fixture
def bo() -> User:
    return User.objects.create_user("bo", "bo@example.com", "a long password", language="zh-hans")


def tell(*users: User, key: str = "submission:sub_1:approved") -> None:
    params = {"listing": "lab/poet", "version": "1.2.0", "reason": "Well <b>made</b>."}
    messages.notify(users, Kind.SUBMISSION_APPROVED, key=key, params=params, url="/review/sub_1/")


def test_a_person_is_told_once_however_often_the_cause_is_reported(ann: User, bo: User) -> None:
    tell(ann, ann)
    tell(ann, bo)

    assert Notification.objects.filter(user=ann).count() == 1
    assert Notification.objects.filter(user=bo).count() == 1
    assert (messages.unread_count(ann), messages.unread_count(None)) == (1, 0)


def test_a_message_leads_only_to_a_page_of_this_site(ann: User) -> None:
    for url in ("https://evil.example/", "//evil.example/"):
        with pytest.raises(ValueError, match="not a path"):
            messages.notify([ann], Kind.JOB_FAILED, key="job:1", params={}, url=url)

    assert not Notification.objects.exists()


def test_every_kind_has_a_sentence_that_any_params_complete(ann: User) -> None:
    assert set(SENTENCES) == set(Kind.values)
    for kind in Kind.values:
        assert "%(" not in sentence(Notification(user=ann, kind=kind, params={}))

    told = Notification(kind=Kind.RATING_RECEIVED, params={"listing": "lab/poet", "stars": 4, "text": "Nice"})
    assert sentence(told) == "lab/poet was rated: 4 of 5 stars."
    assert quote(told) == "Nice"


def test_the_email_is_plain_and_html_in_the_readers_language(ann: User, bo: User) -> None:
    tell(ann, bo)

    tasks.send_emails(list(Notification.objects.values_list("key", flat=True)))
    tasks.send_emails(list(Notification.objects.values_list("key", flat=True)))

    first, second = sorted(mail.outbox, key=lambda message: message.to)
    assert (first.to, first.subject) == (["ann@example.com"], "lab/poet@1.2.0 was approved.")
    assert "http://127.0.0.1:8000/en/review/sub_1/" in first.body
    assert "Well <b>made</b>." in first.body
    html = str(first.alternatives[0][0])  # type: ignore[attr-defined]
    assert "Well &lt;b&gt;made&lt;/b&gt;." in html
    assert '<html lang="en">' in html
    assert "http://127.0.0.1:8000/zh-hans/review/sub_1/" in second.body
    with translation.override("zh-hans"):
        assert second.subject == sentence(Notification.objects.get(user=bo))


def test_what_the_mail_server_refuses_is_sent_later(ann: User, monkeypatch: pytest.MonkeyPatch) -> None:
    tell(ann)
    Notification.objects.update(created_at=timezone.now() - timedelta(minutes=2))

    def refuse(self: EmailBackend, messages: Any) -> int:
        raise ConnectionRefusedError

    with monkeypatch.context() as patch:
        patch.setattr(EmailBackend, "send_messages", refuse)
        tasks.send_unsent()
    assert mail.outbox == []
    tasks.send_unsent()
    tasks.send_unsent()

    assert len(mail.outbox) == 1
    assert not emails.unsent().exists()


def test_the_inbox_lists_opens_and_marks_read(ann: User) -> None:
    client = Client()
    client.force_login(ann)
    for number in range(27):
        tell(ann, key=f"submission:{number}")
    newest = Notification.objects.first()
    assert newest is not None

    page = client.get("/en/inbox/")
    older = client.get("/en/inbox/", {"before": page.context["before"]})
    opened = client.post(f"/en/inbox/{newest.public_id}/open/")

    assert len(page.context["rows"]) == 25
    assert len(older.context["rows"]) == 2
    assert older.context["before"] == ""
    assert opened["Location"] == "/en/review/sub_1/"
    assert messages.unread_count(ann) == 26
    client.post("/en/inbox/read/")
    assert messages.unread_count(ann) == 0


def test_a_stranger_cannot_touch_a_message(ann: User, bo: User) -> None:
    tell(ann)
    public_id = Notification.objects.get().public_id
    client = Client()

    assert client.get("/en/inbox/").status_code == 302
    client.force_login(bo)
    assert client.get("/en/inbox/").context["rows"] == []
    assert client.post(f"/en/inbox/{public_id}/read/").status_code == 404
    assert client.post(f"/en/inbox/{public_id}/open/").status_code == 404
    assert client.post("/en/inbox/read/").status_code == 302
    assert messages.unread_count(ann) == 1
