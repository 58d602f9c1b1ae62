"""Sending e-mails outside the request that caused them."""

from __future__ import annotations

from celery import shared_task

from store.notifications import digests, emails
from store.notifications.models import Notification


@shared_task(name="store.notifications.send_emails")
def send_emails(keys: list[str]) -> None:
    """Send the e-mails of these notifications that were not sent yet."""
    for notification in Notification.objects.select_related("user").filter(key__in=keys, emailed_at__isnull=True):
        emails.send(notification)


@shared_task(name="store.notifications.send_unsent")
def send_unsent() -> None:
    """Send what a lost task or a mail server that was away left unsent."""
    for notification in emails.unsent().select_related("user")[:200]:
        emails.send(notification)


@shared_task(name="store.notifications.send_digests")
def send_digests() -> None:
    """Send the weekly e-mails that are due."""
    digests.send_due()
