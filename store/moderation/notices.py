"""Telling a publisher's owners and maintainers what became of what they submitted."""

from __future__ import annotations

from django.urls import reverse
from django.utils import translation

from store.accounts.models import Membership, User
from store.catalog.models import Listing, Version
from store.moderation.models import Decision, Submission
from store.notifications.messages import notify
from store.notifications.models import Notification


def tell_publisher(
    listing: Listing, kind: Notification.Kind, *, cause: Submission | Decision, version: Version | None, reason: str = ""
) -> None:
    """One message for each cause and person, whatever is repeated."""
    roles = [Membership.Role.OWNER, Membership.Role.MAINTAINER]
    told = User.objects.filter(memberships__publisher=listing.publisher, memberships__role__in=roles, is_active=True).distinct()
    params = {"listing": listing.full_name, "version": version.number if version else "", "reason": reason}
    notify(told, kind, key=f"{kind}:{cause.public_id}", params=params, url=_path(listing))


def _path(listing: Listing) -> str:
    """The page of the listing's reviews, without the language."""
    with translation.override("en"):
        return reverse("moderation:listing", args=[listing.public_id]).removeprefix("/en")
