"""A week of messages in one e-mail, for who chose that in place of one for each."""

from __future__ import annotations

from datetime import timedelta

import structlog
from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.template.loader import render_to_string
from django.utils import timezone, translation

from store.notifications import preferences
from store.notifications.models import Notification, WeeklyDigest
from store.notifications.sentences import sentence

log = structlog.get_logger(__name__)
EVERY = timedelta(days=7)
MOST_LINES = 50  # the newest; the inbox has all
AT_ONCE = 200  # people


def send_due() -> int:
    """Sends those whose week is over; how many e-mails went out. Who was told nothing in that week gets none."""
    due = WeeklyDigest.objects.filter(told_until__lte=timezone.now() - EVERY).select_related("user").order_by("told_until")
    return sum(_send(digest) for digest in due[:AT_ONCE])


def _send(digest: WeeklyDigest) -> bool:
    """Once, whoever else sends at the same time. What the mail server refuses is tried again."""
    since, until, user = digest.told_until, timezone.now(), digest.user
    mine = WeeklyDigest.objects.filter(pk=digest.pk)
    if not mine.filter(told_until=since).update(told_until=until):
        return False
    wanted = set(preferences.wanted(user))
    kinds = [kind for kind, topic in preferences.TOPICS.items() if topic in wanted]
    said = Notification.objects.filter(user=user, kind__in=kinds, created_at__gt=since, created_at__lte=until)[:MOST_LINES]
    if not (user.is_active and user.email and said):
        return False
    try:
        compose(digest, list(said)).send()
    except OSError as error:  # SMTPException is one
        mine.filter(told_until=until).update(told_until=since)
        log.warning("digest not sent", user=user.public_id, error=str(error))
        return False
    return True


def compose(digest: WeeklyDigest, said: list[Notification]) -> EmailMultiAlternatives:
    """In the language of its reader."""
    user = digest.user
    with translation.override(user.language):
        site = f"{settings.SITE_URL}/{user.language}"
        unsubscribe = f"{site}/inbox/unsubscribe/{preferences.token(user, None)}/"
        context = {
            "reader": user,
            "lines": [(sentence(one), f"{site}{one.url}" if one.url else "") for one in said],
            "inbox": f"{site}/inbox/",
            "topic": preferences.label(None),
            "sentence": preferences.label(None),
            "unsubscribe": unsubscribe,
            "preferences": f"{site}/inbox/preferences/",
            "language": user.language,
        }
        message = EmailMultiAlternatives(
            subject=str(preferences.label(None)),
            body=render_to_string("notifications/email/digest.txt", context),
            to=[user.email],
            headers={"List-Unsubscribe": f"<{unsubscribe}>", "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"},  # RFC 8058
        )
        message.attach_alternative(render_to_string("notifications/email/digest.html", context), "text/html")
    return message
