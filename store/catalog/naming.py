"""What a model name means to the person who says it."""

from __future__ import annotations

from typing import Any

from django.db.models import F, Q
from django.utils.translation import gettext as _

from store.catalog import transfers
from store.catalog.errors import VersionWithdrawn
from store.catalog.models import Listing, Version
from store.errors import DomainError, NotFound

MAX_NAME_CHARS = 120


class UnknownModel(NotFound):
    """Also what a name that exists but is not this person's to use answers."""

    code = "model_not_found"


def resolve(name: str, user: Any) -> Version:
    """The version that `name` means: `publisher/slug` (the current one), `publisher/slug@1.2.0`, or a version's public id,
    alone or in the place of the number.

    Raises UnknownModel unless this person may generate with it (`VersionQuerySet.usable_by`), and VersionWithdrawn where a
    pinned version of a GPT they can reach was taken back by its publisher: no other version answers in its place. Its listing, publisher,
    artifact and whole lineage come with it, so that what follows asks the database for nothing more.
    """
    version = _found(name, user) or _found(_moved(name), user)
    if version is None:
        raise _refusal(name, user)
    return version


def _found(name: str, user: Any) -> Version | None:
    if not 0 < len(name) <= MAX_NAME_CHARS or "\0" in name:
        return None
    usable = Version.objects.usable_by(user).filter(_meaning(name))
    return usable.select_related(
        "listing__publisher",
        "artifact",
        "base__artifact",
        "base__listing__publisher",
        "base__base__artifact",
        "base__base__listing__publisher",
        "base__base__base__listing",
    ).first()


def _moved(name: str) -> str:
    """The name as it is now, of a GPT that another publisher has by this time; empty when there is none."""
    path, at, number = name[: MAX_NAME_CHARS + 1].partition("@")
    publisher, _slash, slug = path.partition("/")
    if not slug or "\0" in name or (listing := transfers.moved(publisher, slug)) is None:
        return ""
    return f"{listing.full_name}{at}{number}"


def _refusal(name: str, user: Any) -> DomainError:
    now = _moved(name) or name  # said to nobody who may not reach it
    meant = _meaning(now) if 0 < len(now) <= MAX_NAME_CHARS and "\0" not in now else Q(pk=None)
    withdrawn = Version.objects.filter(meant, state=Version.State.YANKED, released_at__isnull=False)
    found = withdrawn.filter(listing__in=Listing.objects.reachable_by(user)).select_related("listing__publisher").first()
    if found is None:
        return UnknownModel(_("There is no GPT %(name)s, or you may not use it.") % {"name": name[:MAX_NAME_CHARS]}, param="model")
    said = _("%(name)s was withdrawn by its publisher: “%(notice)s” %(listing)s means the current version.")
    values = {"name": found.full_name, "notice": found.notice, "listing": found.listing.full_name}
    return VersionWithdrawn(said % values, param="model")


def _meaning(name: str) -> Q:
    if name.startswith("ver_"):
        return Q(public_id=name)
    path, pinned, number = name.partition("@")
    publisher, _slash, slug = path.partition("/")
    of_listing = Q(listing__publisher__slug=publisher, listing__slug=slug)
    if not pinned:
        return of_listing & Q(listing__current_version=F("pk"))
    return of_listing & (Q(public_id=number) if number.startswith("ver_") else Q(number=number))
