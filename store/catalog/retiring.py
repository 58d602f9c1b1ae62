"""What a publisher may say of a released version afterwards: it is deprecated, or it is withdrawn. Both can be undone.

A deprecated version answers as before and says so. A withdrawn one answers nobody, by whatever name; never the current
version and never one that others build on, so that it ends nothing but itself.
"""

from __future__ import annotations

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from store import kept_pages
from store.accounts import audit
from store.accounts.models import User
from store.accounts.publishers import require_role
from store.catalog.errors import BuiltOn, InvalidVersion, IsCurrent
from store.catalog.models import Ancestry, Listing, Version
from store.catalog.revisions import EDITORS, clean_text
from store.errors import Conflict

NOTICE_CHARS = 300
State = Version.State


def deprecate(user: User, version: Version, *, notice: str) -> None:
    """Says to everybody that they should move away from a released version. `notice` is why, and to what; it may be said anew."""
    require_role(user, version.listing.publisher, *EDITORS)
    notice = _clean_notice(notice)
    with transaction.atomic():
        current = _locked(version, State.RELEASED)
        Version.objects.filter(pk=current.pk).update(deprecated_at=current.deprecated_at or timezone.now(), notice=notice)
        audit.record(user, "version.deprecate", version.public_id, name=version.full_name, notice=notice)
        kept_pages.outdate([version.listing.full_name])
    version.refresh_from_db()


def recommend_again(user: User, version: Version) -> None:
    """Takes the deprecation back."""
    require_role(user, version.listing.publisher, *EDITORS)
    with transaction.atomic():
        deprecated = Version.objects.filter(pk=version.pk, state=State.RELEASED, deprecated_at__isnull=False)
        if not deprecated.update(deprecated_at=None, notice=""):
            raise Conflict
        audit.record(user, "version.undeprecate", version.public_id, name=version.full_name)
        kept_pages.outdate([version.listing.full_name])
    version.refresh_from_db()


def yank(user: User, version: Version, *, notice: str) -> None:
    """RELEASED → YANKED: its name answers from now on that it was withdrawn, and `notice`. Raises IsCurrent, BuiltOn."""
    require_role(user, version.listing.publisher, *EDITORS)
    notice = _clean_notice(notice)
    with transaction.atomic():
        _locked(version, State.RELEASED)
        if Listing.objects.filter(pk=version.listing_id, current_version=version).exists():
            raise IsCurrent
        if Ancestry.objects.filter(ancestor=version, version__in=Version.objects.available()).exists():
            raise BuiltOn
        Version.objects.filter(pk=version.pk).update(state=State.YANKED, notice=notice)
        audit.record(user, "version.yank", version.public_id, name=version.full_name, notice=notice)
        kept_pages.outdate([version.listing.full_name])
    version.refresh_from_db()


def bring_back(user: User, version: Version) -> None:
    """YANKED → RELEASED, for what had been released. It is not deprecated any more either."""
    require_role(user, version.listing.publisher, *EDITORS)
    with transaction.atomic():
        withdrawn = Version.objects.filter(pk=version.pk, state=State.YANKED, released_at__isnull=False)
        if not withdrawn.update(state=State.RELEASED, deprecated_at=None, notice=""):
            raise Conflict
        audit.record(user, "version.unyank", version.public_id, name=version.full_name)
        kept_pages.outdate([version.listing.full_name])
    version.refresh_from_db()


def _locked(version: Version, state: str) -> Version:
    """Its row, which `listings.make_current` locks too, so that nobody makes it current meanwhile."""
    current = Version.objects.select_for_update().filter(pk=version.pk, state=state).first()
    if current is None:
        raise Conflict
    return current


def _clean_notice(notice: str) -> str:
    cleaned = clean_text(notice, param="notice", limit=NOTICE_CHARS)
    if not cleaned:
        raise InvalidVersion(_("Say why, and what to use instead."), param="notice")
    return cleaned
