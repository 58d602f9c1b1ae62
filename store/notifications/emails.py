"""Notifications as e-mails, plain text and HTML, in the reader's language."""

from __future__ import annotations

from datetime import timedelta

import structlog
from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.db.models import QuerySet
from django.template.loader import render_to_string
from django.utils import timezone, translation

from store.notifications import preferences
from store.notifications.models import Notification
from store.notifications.sentences import quote, sentence

log = structlog.get_logger(__name__)
SEND_WITHIN = timedelta(days=1)  # older news is on the site only


def unsent() -> QuerySet[Notification]:
    """What beat sends: messages whose task was lost, a minute after they were written."""
    now = timezone.now()
    return Notification.objects.filter(
        emailed_at__isnull=True, created_at__gt=now - SEND_WITHIN, created_at__lt=now - timedelta(minutes=1)
    ).order_by("pk")


def send(notification: Notification) -> bool:
    """Send one e-mail unless it was sent, or is being sent, elsewhere. What the mail server refuses stays unsent, to be tried again."""
    waiting = Notification.objects.filter(pk=notification.pk, emailed_at__isnull=True)
    if not waiting.update(emailed_at=timezone.now()):
        return False
    user = notification.user
    if not (user.is_active and user.email and preferences.wants(user, notification.kind)) or preferences.is_weekly(user):
        return False
    try:
        compose(notification).send()
    except OSError as error:  # SMTPException is one
        Notification.objects.filter(pk=notification.pk).update(emailed_at=None)
        log.warning("e-mail not sent", notification=notification.public_id, error=str(error))
        return False
    return True


def compose(notification: Notification) -> EmailMultiAlternatives:
    """The message in the language of its reader."""
    user = notification.user
    with translation.override(user.language):
        site = f"{settings.SITE_URL}/{user.language}"
        said = sentence(notification)
        topic = preferences.topic_of(notification.kind)
        unsubscribe = f"{site}/inbox/unsubscribe/{preferences.token(user, topic)}/"
        context = {
            "reader": user,
            "sentence": said,
            "quote": quote(notification),
            "link": f"{site}{notification.url}" if notification.url else "",
            "inbox": f"{site}/inbox/",
            "topic": topic.label,
            "unsubscribe": unsubscribe,
            "preferences": f"{site}/inbox/preferences/",
            "language": user.language,
        }
        message = EmailMultiAlternatives(
            subject=" ".join(said.split()),
            body=render_to_string("notifications/email/message.txt", context),
            to=[user.email],
            headers={"List-Unsubscribe": f"<{unsubscribe}>", "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"},  # RFC 8058
        )
        message.attach_alternative(render_to_string("notifications/email/message.html", context), "text/html")
    return message
