"""Which messages a person wants as e-mails too, and the signed links by which they say so without signing in."""

from __future__ import annotations

from collections.abc import Iterable

from django.core import signing
from django.db import transaction
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from store.accounts.models import User
from store.errors import NotFound
from store.notifications.models import EmailOptOut, Notification, Topic, WeeklyDigest

Kind = Notification.Kind
SALT = "notifications.unsubscribe"
DIGEST = "digest"  # in place of a topic: the weekly e-mail, with all of them
DIGEST_LABEL = _("Your week in messages")
TOPICS: dict[str, Topic] = {
    **dict.fromkeys(
        (
            *(Kind.SUBMISSION_APPROVED, Kind.SUBMISSION_CHANGES, Kind.SUBMISSION_REJECTED, Kind.SUBMISSION_CHECKS_FAILED),
            *(Kind.VERSION_SUSPENDED, Kind.VERSION_RESTORED),
        ),
        Topic.REVIEWS,
    ),
    **dict.fromkeys((Kind.JOB_SUCCEEDED, Kind.JOB_FAILED), Topic.JOBS),
    **dict.fromkeys((Kind.RATING_RECEIVED, Kind.RATING_REPLY), Topic.RATINGS),
    **dict.fromkeys((Kind.GPT_PUBLISHED, Kind.VERSION_PUBLISHED), Topic.FOLLOWED),
    **dict.fromkeys((Kind.ACCESS_RENEWED, Kind.ACCESS_ENDED), Topic.MONEY),
    **dict.fromkeys((Kind.TRANSFER_OFFERED, Kind.TRANSFER_ANSWERED, Kind.BADGE_AT_RISK, Kind.BADGE_LOST), Topic.PUBLISHERS),
}


def topic_of(kind: str) -> Topic:
    return TOPICS[kind]


def wants(user: User, kind: str) -> bool:
    return not EmailOptOut.objects.filter(user=user, topic=topic_of(kind)).exists()


def wanted(user: User) -> list[str]:
    """The topics that come by e-mail."""
    out = set(EmailOptOut.objects.filter(user=user).values_list("topic", flat=True))
    return [topic for topic in Topic.values if topic not in out]


def choose(user: User, topics: Iterable[str]) -> None:
    """From now on these topics come by e-mail, and no others."""
    chosen = set(topics)
    with transaction.atomic():
        EmailOptOut.objects.filter(user=user, topic__in=chosen).delete()
        for topic in Topic:
            if topic.value not in chosen:
                stop(user, topic)


def stop(user: User, topic: Topic | None) -> None:
    """No e-mails about this any more, however often it is said; None: the weekly one, and none in its place."""
    for one in Topic if topic is None else [topic]:
        EmailOptOut.objects.get_or_create(user=user, topic=one)


def is_weekly(user: User) -> bool:
    return WeeklyDigest.objects.filter(user=user).exists()


def choose_rhythm(user: User, *, weekly: bool) -> None:
    """From now on one e-mail a week, or one for each message."""
    if weekly:
        WeeklyDigest.objects.get_or_create(user=user, defaults={"told_until": timezone.now()})
    else:
        WeeklyDigest.objects.filter(user=user).delete()


def label(topic: Topic | None) -> str | Promise:
    return DIGEST_LABEL if topic is None else topic.label


def token(user: User, topic: Topic | None) -> str:
    """Lets whoever holds it end this person's e-mails about that topic, or the weekly one, and do nothing else. It does not run out."""
    return signing.dumps([user.public_id, DIGEST if topic is None else topic.value], salt=SALT)


def read_token(token: str) -> tuple[User, Topic | None]:
    """Raises NotFound for one that this store did not sign, or whose person is gone."""
    try:
        public_id, topic = signing.loads(token, salt=SALT)
        return User.objects.get(public_id=public_id), None if topic == DIGEST else Topic(topic)
    except (signing.BadSignature, User.DoesNotExist, ValueError) as error:
        raise NotFound from error
