"""Owners hear of what becomes of their publisher's badge."""

from __future__ import annotations

from datetime import datetime

from django.utils import timezone

from store.accounts.domains import Badge
from store.accounts.models import Membership, Publisher, User
from store.notifications.messages import notify
from store.notifications.models import Notification

KINDS = {Badge.AT_RISK: Notification.Kind.BADGE_AT_RISK, Badge.LOST: Notification.Kind.BADGE_LOST}


def tell(publisher: Publisher, domain: str, what: Badge, until: datetime) -> None:
    owners = User.objects.filter(memberships__publisher=publisher, memberships__role=Membership.Role.OWNER)
    day = timezone.localtime(until).date().isoformat()
    key, params = f"badge:{publisher.public_id}:{what}:{day}", {"subject": domain, "until": day}
    notify(owners, KINDS[what], key=key, params=params, url=f"/account/publishers/{publisher.slug}/domain/")
