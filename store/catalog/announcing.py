"""Telling who follows a GPT or its publisher that a version was published: each person once for each version, whatever is repeated."""

from __future__ import annotations

from datetime import timedelta

from django.db.models import Exists, OuterRef, Q, QuerySet
from django.urls import reverse
from django.utils import timezone, translation

from store.accounts.models import User
from store.catalog.models import Follow, Listing, Version
from store.notifications.messages import notify
from store.notifications.models import Notification

SLICE = 500  # people told in one go
MISSED_WITHIN = timedelta(days=7)  # older news is none


def announce(public_id: str) -> int:
    """Tells the followers of a version that is out and was not announced yet; how many people.

    A task that is run again, or beside another, tells nobody twice: a notification is unique by version and person.
    """
    version = _to_announce().filter(public_id=public_id).select_related("listing__publisher").first()
    if version is None:
        return 0
    told, last = 0, 0
    while users := list(_followers(version).filter(pk__gt=last).order_by("pk")[:SLICE]):
        _tell(users, version)
        told, last = told + len(users), users[-1].pk
    Version.objects.filter(pk=version.pk, announced_at__isnull=True).update(announced_at=timezone.now())
    return told


def announce_missed() -> int:
    """What beat calls for: versions whose task was lost; how many there were."""
    missed = list(_to_announce().order_by("pk").values_list("public_id", flat=True)[:50])
    for public_id in missed:
        announce(public_id)
    return len(missed)


def _to_announce() -> QuerySet[Version]:
    """Of listings that are shown, the versions that can be used."""
    shown = Listing.objects.filter(visibility__in=["public", "unlisted"], live_revision__isnull=False)
    waiting = Version.objects.available().filter(announced_at__isnull=True, released_at__gt=timezone.now() - MISSED_WITHIN)
    return waiting.filter(listing__in=shown)


def _followers(version: Version) -> QuerySet[User]:
    """Who follows the publisher is told of what is listed; whoever follows the GPT itself knows of it."""
    listing = version.listing
    of_this = Q(listing=listing)
    if listing.visibility == Listing.Visibility.PUBLIC:
        of_this |= Q(publisher=listing.publisher)
    return User.objects.filter(Exists(Follow.objects.filter(of_this, user=OuterRef("pk"))), is_active=True)


def _tell(users: list[User], version: Version) -> None:
    listing = version.listing
    is_first = not listing.versions.filter(released_at__isnull=False, pk__lt=version.pk).exists()
    kind = Notification.Kind.GPT_PUBLISHED if is_first else Notification.Kind.VERSION_PUBLISHED
    params = {"listing": listing.full_name, "version": version.number, "publisher": listing.publisher.name, "text": version.change_log}
    notify(users, kind, key=f"published:{version.public_id}", params=params, url=_path(version))


def _path(version: Version) -> str:
    """Where it says what changed, without the language."""
    with translation.override("en"):
        page = reverse("pages:versions", args=[version.listing.publisher.slug, version.listing.slug])
    return f"{page.removeprefix('/en')}#v{version.number}"
