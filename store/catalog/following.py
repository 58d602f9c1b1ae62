"""Following a GPT or a publisher, to be told of new versions."""

from __future__ import annotations

from django.db import transaction
from django.utils.translation import gettext_lazy as _

from store.accounts.models import Publisher, User
from store.catalog.models import Follow, Listing
from store.errors import Conflict, NotFound

MOST = 300  # of one person


class EnoughFollowed(Conflict):
    code = "enough_followed"
    message = _("You follow as much as one person can. Stop following something, then follow this.")


def follow_listing(user: User, listing: Listing) -> Follow:
    """Kept once, however often it is asked for. Raises NotFound for a listing that this person can't see, EnoughFollowed."""
    if not Listing.objects.reachable_by(user).filter(pk=listing.pk).exists():
        raise NotFound
    return _follow(user, listing=listing)


def follow_publisher(user: User, publisher: Publisher) -> Follow:
    return _follow(user, publisher=publisher)


def stop(user: User, public_id: str) -> Follow:
    """Ends one of the person's own, and returns what it was. Raises NotFound for any other."""
    own = Follow.objects.filter(user=user, public_id=public_id)
    found = own.select_related("listing__publisher", "publisher").first()
    if found is None or not own.delete()[0]:
        raise NotFound
    return found


def _follow(user: User, **what: Listing | Publisher) -> Follow:
    with transaction.atomic():
        User.objects.select_for_update().get(pk=user.pk)  # one after the other, so that MOST is the most
        own = Follow.objects.filter(user=user)
        if (kept := own.filter(**what).first()) is not None:
            return kept
        if own.count() >= MOST:
            raise EnoughFollowed
        return Follow.objects.create(user=user, **what)
