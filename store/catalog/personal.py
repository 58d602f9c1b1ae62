"""What the catalogue holds of a person."""

from __future__ import annotations

from django.utils.translation import gettext_lazy as _

from store.accounts.personal_data import Holding

_PUBLISHED = _("What you made for a publisher, which it has published or may publish: versions, texts and files.")
HOLDINGS = (
    Holding("catalog.SavedSearch"),
    Holding("catalog.Follow"),
    Holding("catalog.CollectionItem", "collection__user"),
    Holding("catalog.Collection"),
    Holding("catalog.ListingRevision", "created_by", kept=_PUBLISHED),
    Holding("catalog.Version", "created_by", kept=_PUBLISHED),
    Holding(
        "catalog.Transfer",
        "offered_by",
        kept=_(
            "To whom a publisher offered a GPT, and what was answered. The old address of a GPT that was given away goes on leading to it."
        ),
    ),
)
