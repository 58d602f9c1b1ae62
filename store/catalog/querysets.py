"""Who can reach which listing and version: the one place that says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.models import Exists, OuterRef, Q

if TYPE_CHECKING:
    pass


def _is_reviewer(user: Any) -> bool:
    return bool(user and user.is_authenticated and (user.is_superuser or user.has_perm("moderation.review")))


class ListingQuerySet(models.QuerySet["Listing"]):
    def listed(self) -> ListingQuerySet:
        """What explore, home and /v1/models show to everyone."""
        from store.catalog.models import Version

        available = Version.objects.available().filter(pk=OuterRef("current_version"))
        return self.filter(Exists(available), visibility="public", suspended_at__isnull=True, live_revision__isnull=False)

    def reachable_by(self, user: Any) -> ListingQuerySet:
        """Whose page answers: approved and not suspended for everybody; anything for members of the publisher and reviewers."""
        from store.catalog.models import Version

        if _is_reviewer(user):
            return self
        available = Version.objects.available().filter(pk=OuterRef("current_version"))
        everybody = Q(Exists(available), visibility__in=["public", "unlisted"], suspended_at__isnull=True, live_revision__isnull=False)
        if user and user.is_authenticated:
            return self.filter(everybody | Q(publisher__memberships__user=user)).distinct()
        return self.filter(everybody)


class VersionQuerySet(models.QuerySet["Version"]):
    def available(self) -> VersionQuerySet:
        """Released, and so is every ancestor, and neither its listing nor an ancestor's is suspended."""
        from store.catalog.models import Ancestry

        lost = Ancestry.objects.filter(version=OuterRef("pk")).filter(
            ~Q(ancestor__state="released") | Q(ancestor__listing__suspended_at__isnull=False)
        )
        return self.filter(~Exists(lost), state="released", listing__suspended_at__isnull=True)

    def usable_by(self, user: Any) -> VersionQuerySet:
        """What this person may generate with: available ones of reachable listings; drafts and submitted ones for members and reviewers.

        An ancestor that is not available stops everybody: a suspended base answers nobody.
        """
        from store.catalog.models import Ancestry

        lost = Ancestry.objects.filter(version=OuterRef("pk")).filter(
            ~Q(ancestor__state="released") | Q(ancestor__listing__suspended_at__isnull=False)
        )
        public = Q(
            state="released",
            listing__visibility__in=["public", "unlisted"],
            listing__suspended_at__isnull=True,
            listing__live_revision__isnull=False,
        )
        own = Q(state__in=["draft", "sealed", "released", "refused"])
        intact = self.filter(~Exists(lost))
        if _is_reviewer(user):
            return intact.filter(public | own | Q(state="suspended"))
        if user and user.is_authenticated:
            return intact.filter(public | (own & Q(listing__publisher__memberships__user=user))).distinct()
        return intact.filter(public)
