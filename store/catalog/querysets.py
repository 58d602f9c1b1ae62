"""Who can reach which listing and version: the one place that says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.models import Case, Exists, F, OuterRef, Q, When

from store.accounts.models import Membership

if TYPE_CHECKING:
    from store.catalog.models import Listing, Version  # noqa: F401 named by the base classes below


def _is_reviewer(user: Any) -> bool:
    return bool(user and user.is_authenticated and (user.is_superuser or user.has_perm("moderation.review")))


def base_digest() -> Case:
    """Of listings: the artifact of the weights whose engine answers for the current version, as `Version.weights` finds them."""
    versions = ("current_version", "current_version__base", "current_version__base__base")
    return Case(*(When(**{f"{version}__kind": "weights"}, then=F(f"{version}__artifact__digest")) for version in versions))


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
            return self.filter(everybody | Exists(Membership.objects.filter(user=user, publisher=OuterRef("publisher"))))
        return self.filter(everybody)

    def for_cards(self) -> ListingQuerySet:
        """With everything a card or a row of a list shows, in a constant number of queries."""
        return self.select_related(
            *("publisher", "live_revision", "rating_summary"),
            *("current_version__base__listing__publisher", "current_version__base__base__listing__publisher"),
            "current_version__base__base__base__listing",
        ).prefetch_related("live_revision__texts", "use_cases")


class VersionQuerySet(models.QuerySet["Version"]):
    def intact(self) -> VersionQuerySet:
        """Whose every ancestor is released and not suspended, whatever their own state."""
        from store.catalog.models import Ancestry

        lost = Ancestry.objects.filter(version=OuterRef("pk")).filter(
            ~Q(ancestor__state="released") | Q(ancestor__listing__suspended_at__isnull=False)
        )
        return self.filter(~Exists(lost))

    def available(self) -> VersionQuerySet:
        """Released, and so is every ancestor, and neither its listing nor an ancestor's is suspended."""
        return self.intact().filter(state="released", listing__suspended_at__isnull=True)

    def not_taken_down(self) -> VersionQuerySet:
        """Neither suspended nor withdrawn, and so is nothing they build on; drafts too. What works on one may go on."""
        return self.intact().filter(listing__suspended_at__isnull=True).exclude(state__in=["suspended", "yanked"])

    def usable_by(self, user: Any) -> VersionQuerySet:
        """What this person may generate with: available ones of reachable listings; drafts and submitted ones for members and reviewers.

        An ancestor that is not available stops everybody: a suspended base answers nobody. What was suspended itself
        answers only reviewers.
        """
        public = Q(
            state="released",
            listing__visibility__in=["public", "unlisted"],
            listing__suspended_at__isnull=True,
            listing__live_revision__isnull=False,
        )
        if _is_reviewer(user):
            return self.intact().exclude(state="yanked")
        if user and user.is_authenticated:
            own = Q(
                Exists(Membership.objects.filter(user=user, publisher=OuterRef("listing__publisher"))),
                state__in=["draft", "sealed", "released", "refused"],
                listing__suspended_at__isnull=True,
            )
            return self.intact().filter(public | own)
        return self.intact().filter(public)

    def downloadable_by(self, user: Any) -> VersionQuerySet:
        """Whose files this person may take: available, and their publisher lets everybody who can use it.

        Weights that were trained from another publisher's need the leave of that one too.
        """
        own = Q(listing__allow_download=True, artifact__isnull=False)
        return self.usable_by(user).available().filter(own, ~Q(kind="weights") | ~Exists(_withheld("allow_download")))

    def trainable(self) -> VersionQuerySet:
        """Available full weights that everybody who can use them may train on: their publisher allows it."""
        allowed = self.available().filter(kind="weights", listing__allow_finetune=True)
        return allowed.filter(~Exists(_withheld("allow_finetune")))


def _withheld(permission: str) -> Any:
    """Ancestors whose publisher, another one, does not give that permission: weights that were trained from theirs still hold theirs."""
    from store.catalog.models import Ancestry

    others = Ancestry.objects.filter(version=OuterRef("pk")).exclude(ancestor__listing__publisher=OuterRef("listing__publisher"))
    return others.filter(**{f"ancestor__listing__{permission}": False})
