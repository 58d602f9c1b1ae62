"""Acts on ratings: rate, withdraw, reply, flag, and what a moderator decides about a flag."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.db.models import Count, F, QuerySet, Sum
from django.urls import reverse
from django.utils import timezone, translation
from django.utils.translation import gettext_lazy as _

from store import kept_pages
from store.accounts import audit
from store.accounts.models import Membership, User
from store.accounts.publishers import require_role
from store.catalog.models import Listing, may_see
from store.errors import Conflict, NotAllowed, NotFound
from store.generation.models import Request
from store.notifications.messages import notify
from store.notifications.models import Notification
from store.ratings import signs, summaries
from store.ratings.errors import AlreadySettled, InvalidRating, NotUsedYet, OwnListing
from store.ratings.models import Flag, PastRating, Rating, Reply
from store.ratings.text import cleaned, fingerprint

REPLYING = (Membership.Role.OWNER, Membership.Role.MAINTAINER)
MAX_TEXT, MAX_REPLY = 4000, 2000
REASONS = [choice for choice in Flag.Reason.choices if choice[0] not in (Flag.Reason.DUPLICATE, Flag.Reason.BURST)]  # given by people
SAID = ("stars", "text", "language", "version_id")  # a change of one of these is another rating


def rate(user: User, listing: Listing, *, stars: int, text: str = "", language: str = "en") -> Rating:
    """The user's one rating of the listing, made or changed, bound to the version they used last.

    Raises NotFound for a listing they can't see, OwnListing, NotUsedYet and InvalidRating.
    """
    require_may_rate(user, listing)
    text = cleaned(text, most=MAX_TEXT)
    if stars not in range(1, 6):
        raise InvalidRating(_("Choose one to five stars."), param="stars")
    said = {"stars": stars, "text": text, "language": language, "version_id": _version_used_last(user, listing)}
    rating = _write(user, listing, said | {"fingerprint": fingerprint(text)} | _use(user, listing))
    signs.look_at(rating)
    return rating


def _version_used_last(user: User, listing: Listing) -> int:
    last = metered_requests(user, listing).order_by("-id").values_list("version_id", flat=True).first()
    assert last is not None  # require_may_rate saw one, and requests are never deleted
    return last


def _use(user: User, listing: Listing) -> dict[str, int]:
    """What the rating weighs: how often, and with how many tokens, its author had used the listing."""
    tokens = Sum(F("prompt_tokens") + F("completion_tokens"))
    return metered_requests(user, listing).aggregate(requests_used=Count("pk"), tokens_used=tokens)


def _write(user: User, listing: Listing, fields: dict[str, Any]) -> Rating:
    with transaction.atomic():
        rating, created = Rating.objects.get_or_create(listing=listing, user=user, defaults=fields)
        if created:
            summaries.apply(listing.pk, before=None, after=rating.stars)
            kept_pages.outdate([listing.full_name])
            _tell_publisher(rating)
            return rating
        current = Rating.objects.select_for_update().filter(pk=rating.pk).first()
        if current is None:
            raise Conflict
        if current.withdrawn_at is None and all(getattr(current, name) == fields[name] for name in SAID):
            return current
        _keep(current)
        Rating.objects.filter(pk=current.pk).update(**fields, edited_at=timezone.now(), withdrawn_at=None)
        if current.hidden_at is None:
            before = current.stars if current.withdrawn_at is None else None
            summaries.apply(listing.pk, before=before, after=fields["stars"])
            kept_pages.outdate([listing.full_name])
        rating.refresh_from_db()  # while it is locked: behind the commit its author may have withdrawn it
        return rating


def _keep(current: Rating) -> None:
    """What the rating says now goes into its history."""
    kept = (*SAID, "requests_used", "tokens_used", "withdrawn_at")
    written_at = current.edited_at or current.created_at
    PastRating.objects.create(rating=current, written_at=written_at, **{name: getattr(current, name) for name in kept})


def withdraw(user: User, rating: Rating) -> None:
    """Take the user's own rating back. It is kept and shown to nobody but moderators, whose decision about it stays."""
    with transaction.atomic():
        current = Rating.objects.select_for_update().filter(pk=rating.pk, user=user, withdrawn_at=None).first()
        if current is None:
            raise NotFound
        Rating.objects.filter(pk=current.pk).update(withdrawn_at=timezone.now())
        if current.hidden_at is None:
            summaries.apply(current.listing_id, before=current.stars, after=None)
            kept_pages.outdate([rating.listing.full_name])


def reply(user: User, rating: Rating, *, text: str) -> Reply:
    """The publisher's one public reply, made or changed; its author is told the first time."""
    publisher = rating.listing.publisher
    require_role(user, publisher, *REPLYING)
    if not rating.is_visible:
        raise NotFound
    text = cleaned(text, most=MAX_REPLY)
    if not text:
        raise InvalidRating(_("Write a reply."), param="text")
    with transaction.atomic():
        written, created = Reply.objects.update_or_create(rating=rating, defaults={"author": user, "text": text})
        audit.record(user, "rating.reply", rating.public_id)
        if created:
            notify(
                [rating.user],
                Notification.Kind.RATING_REPLY,
                key=f"rating:{rating.public_id}:reply",
                params={"listing": rating.listing.full_name, "publisher": publisher.name, "text": text},
                url=_path_of(rating.listing),
            )
    return written


def flag(user: User, rating: Rating, *, reason: str) -> Flag:
    """Say that a rating breaks the rules. The same person's second flag is their first one."""
    if not rating.is_visible or not may_see(user, rating.listing):
        raise NotFound
    if rating.user_id == user.pk:
        raise NotAllowed(_("This is your own rating: you can change or withdraw it."))
    if reason not in dict(REASONS):
        raise InvalidRating(_("Choose one of the reasons."), param="reason")
    return Flag.objects.get_or_create(rating=rating, user=user, defaults={"reason": reason})[0]


def settle_flag(user: User, flag: Flag, *, uphold: bool) -> None:
    """A moderator hides the rating, which settles every open flag on it, or dismisses this flag.

    Raises NotFound for who does not review, OwnListing for a member of the publisher, AlreadySettled.
    """
    if not user.is_reviewer:
        raise NotFound
    with transaction.atomic():
        rating = Rating.objects.select_for_update().select_related("listing__publisher").filter(pk=flag.rating_id).first()
        if rating is None:
            raise NotFound
        if rating.listing.publisher.role_of(user) or rating.user_id == user.pk:
            raise OwnListing
        state = Flag.State.UPHELD if uphold else Flag.State.DISMISSED
        if not Flag.objects.filter(pk=flag.pk, state=Flag.State.OPEN).update(state=state):
            raise AlreadySettled
        if uphold:
            Flag.objects.filter(rating=rating, state=Flag.State.OPEN).update(state=state)
            hidden = Rating.objects.filter(pk=rating.pk, hidden_at__isnull=True).update(hidden_at=timezone.now())
            if hidden and rating.withdrawn_at is None:
                summaries.apply(rating.listing_id, before=rating.stars, after=None)
                kept_pages.outdate([rating.listing.full_name])
        audit.record(user, "rating.hide" if uphold else "flag.dismiss", rating.public_id, flag=flag.public_id, reason=flag.reason)


def require_may_rate(user: User, listing: Listing) -> None:
    """Passes when the user can see the listing, is no member of its publisher, and has used it."""
    if not may_see(user, listing):
        raise NotFound
    if listing.publisher.role_of(user):
        raise OwnListing
    if not metered_requests(user, listing).exists():
        raise NotUsedYet


def metered_requests(user: User, listing: Listing) -> QuerySet[Request]:
    """The user's requests to any version of the listing whose answers came to their end, with tokens counted.

    Without those of the arena: a GPT that somebody did not choose is not one they use, and who may rate would give its name away.
    """
    finished = Request.objects.filter(user=user, version__listing=listing, state=Request.State.FINISHED, completion_tokens__gt=0)
    return finished.exclude(source=Request.Source.ARENA)


def _tell_publisher(rating: Rating) -> None:
    listing = rating.listing
    notify(
        User.objects.filter(memberships__publisher=listing.publisher, memberships__role__in=REPLYING),
        Notification.Kind.RATING_RECEIVED,
        key=f"rating:{rating.public_id}:received",
        params={"listing": listing.full_name, "stars": rating.stars, "text": rating.text},
        url=_path_of(listing),
    )


def _path_of(listing: Listing) -> str:
    """The path of the listing's ratings, without the language."""
    with translation.override("en"):
        return reverse("pages:listing", args=[listing.publisher.slug, listing.slug]).removeprefix("/en") + "#ratings"
