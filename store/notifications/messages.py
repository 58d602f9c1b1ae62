"""Telling people what happened: a row they read on the site, and an e-mail sent after the commit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db import transaction
from django.utils import timezone

from store.accounts.models import User
from store.errors import NotFound
from store.notifications.models import Notification
from store.notifications.tasks import send_emails


def notify(users: Iterable[User], kind: Notification.Kind, *, key: str, params: dict[str, Any], url: str = "") -> None:
    """Tell each of `users` once, however often the same `key` is reported.

    `key` names the cause ("submission:sub_…:approved"); `params` are what the sentence of this kind names
    (`store.notifications.sentences`); `url` is the path of the page it is about, without the language.
    """
    if url and (not url.startswith("/") or url.startswith("//")):
        raise ValueError(f"not a path of this site: {url}")
    told = {user.pk: user for user in users}.values()
    rows = [Notification(user=user, kind=kind, key=f"{key}:{user.pk}", params=params, url=url) for user in told]
    if not rows:
        return
    Notification.objects.bulk_create(rows, ignore_conflicts=True)
    keys = [row.key for row in rows]
    transaction.on_commit(lambda: send_emails.delay(keys), robust=True)  # what the broker loses, beat sends


def unread_count(user: Any) -> int:
    """How many messages wait for this person; 0 for a visitor."""
    if not isinstance(user, User):
        return 0
    return Notification.objects.filter(user=user, read_at__isnull=True).count()


def mark_read(user: User, public_id: str) -> Notification:
    """The user's own message, read from now on. Raises NotFound for anybody else's."""
    notification = Notification.objects.filter(user=user, public_id=public_id).first()
    if notification is None:
        raise NotFound
    Notification.objects.filter(pk=notification.pk, read_at__isnull=True).update(read_at=timezone.now())
    return notification


def mark_all_read(user: User) -> int:
    """How many were unread."""
    return Notification.objects.filter(user=user, read_at__isnull=True).update(read_at=timezone.now())
