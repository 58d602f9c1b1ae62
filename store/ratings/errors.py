"""What can go wrong with ratings."""

from __future__ import annotations

from django.utils.translation import gettext_lazy as _

from store.errors import Conflict, DomainError, NotAllowed


class NotUsedYet(DomainError):
    code = "not_used"
    status = 403
    message = _("Only people who used a GPT can rate it. Ask it something first; its answer must have come to its end.")


class OwnListing(NotAllowed):
    code = "own_listing"
    message = _("Members of a publisher can't rate or judge what is said about their own GPTs.")


class InvalidRating(DomainError):
    code = "invalid_rating"


class AlreadySettled(Conflict):
    code = "already_settled"
    message = _("Somebody has decided about this flag already.")
