"""What the ratings hold of a person."""

from __future__ import annotations

from django.db.models import F
from django.utils.translation import gettext_lazy as _

from store.accounts.models import User
from store.accounts.personal_data import Holding
from store.ratings import rating
from store.ratings.models import HelpfulVote, Rating

HOLDINGS = (
    Holding("ratings.PastRating", "rating__user"),
    Holding("ratings.HelpfulVote"),
    Holding("ratings.Flag"),
    Holding("ratings.Rating", hidden=frozenset({"fingerprint"})),
    Holding("ratings.Reply", "author", kept=_("Replies to ratings, which speak for their publisher.")),
)


def take_back(user: User) -> None:
    """The counters that the person's ratings and votes had moved move back, before the rows go."""
    for own in Rating.objects.filter(user=user, withdrawn_at=None):
        rating.withdraw(user, own)
    voted_for = HelpfulVote.objects.filter(user=user).values("rating")
    Rating.objects.filter(pk__in=voted_for).update(helpful_count=F("helpful_count") - 1)
