"""Signs that ratings are not the opinions of as many people: a text said before, and many new accounts at once.

A sign is a flag that nobody raised. It hides nothing and changes no count: a moderator looks at it, as at any other flag.
"""

from __future__ import annotations

from datetime import timedelta

from django.db.models import QuerySet

from store.ratings.models import Flag, Rating

BURST_RATINGS, BURST_WINDOW = 10, timedelta(hours=1)
NEW_ACCOUNT = timedelta(days=1)  # how old an account is at most that counts towards a burst


def look_at(rating: Rating) -> None:
    """Raises the flags that the rating gives reason for, once each.

    Call it behind the commit of the rating: of people who write at once, at least the last to look sees all the others.
    """
    if repeats(rating):
        _raise([rating], Flag.Reason.DUPLICATE)
    burst = list(burst_around(rating))
    if len(burst) >= BURST_RATINGS:
        _raise(burst, Flag.Reason.BURST)


def repeats(rating: Rating) -> bool:
    """Whether another rating, of whatever listing and whoever's, says or said the same."""
    return rating.fingerprint != "" and Rating.objects.filter(fingerprint=rating.fingerprint).exclude(pk=rating.pk).exists()


def burst_around(rating: Rating) -> QuerySet[Rating]:
    """First ratings of the listing by new accounts in the window that ends with this one; none for an old account."""
    end = rating.created_at
    near = Rating.objects.filter(listing=rating.listing_id, created_at__gt=end - BURST_WINDOW, user__date_joined__gt=end - NEW_ACCOUNT)
    return near if near.filter(pk=rating.pk).exists() else near.none()


def _raise(ratings: list[Rating], reason: Flag.Reason) -> None:
    Flag.objects.bulk_create([Flag(rating=rating, user=None, reason=reason) for rating in ratings], ignore_conflicts=True)
