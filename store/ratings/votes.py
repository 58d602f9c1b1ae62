"""Votes that a rating helps; the count on the rating moves with them in one UPDATE."""

from __future__ import annotations

from django.db import transaction
from django.db.models import F
from django.utils.translation import gettext_lazy as _

from store.accounts.models import User
from store.catalog.models import may_see
from store.errors import NotAllowed, NotFound
from store.ratings.errors import OwnListing
from store.ratings.models import HelpfulVote, Rating


def vote(user: User, rating: Rating) -> None:
    """The user's one vote for it; a second one is the first.

    Raises NotFound for what they can't see, NotAllowed for their own rating, OwnListing for members of the publisher.
    """
    _require_may_vote(user, rating)
    with transaction.atomic():
        _lock(rating)
        _vote, created = HelpfulVote.objects.get_or_create(rating=rating, user=user)
        if created:
            Rating.objects.filter(pk=rating.pk).update(helpful_count=F("helpful_count") + 1)


def take_back(user: User, rating: Rating) -> None:
    """Without a vote nothing happens."""
    _require_may_vote(user, rating)
    with transaction.atomic():
        _lock(rating)
        deleted, _by_model = HelpfulVote.objects.filter(rating=rating, user=user).delete()
        if deleted:
            Rating.objects.filter(pk=rating.pk).update(helpful_count=F("helpful_count") - 1)


def _require_may_vote(user: User, rating: Rating) -> None:
    if not rating.is_visible or not may_see(user, rating.listing):
        raise NotFound
    if rating.user_id == user.pk:
        raise NotAllowed(_("This is your own rating; whether it helps is for others to say."))
    if rating.listing.publisher.role_of(user):
        raise OwnListing


def _lock(rating: Rating) -> None:
    """Before the vote, whose foreign key locks the rating in part: two voters and its author could wait for each other in a ring.

    Raises NotFound where it was withdrawn or hidden meanwhile.
    """
    visible = Rating.objects.filter(pk=rating.pk, hidden_at__isnull=True, withdrawn_at__isnull=True)
    if visible.select_for_update().first() is None:
        raise NotFound
