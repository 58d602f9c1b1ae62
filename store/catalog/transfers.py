"""A GPT given to another publisher: offered by an owner, accepted by an owner there, and found under its old address for ever after.

What was earned before stays where it was posted; what is used from then on earns for the new publisher. The old address belongs
to the GPT: its old publisher can give it to no other.
"""

from __future__ import annotations

from datetime import timedelta

from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from store.accounts import audit
from store.accounts.invitations import has_confirmed_address
from store.accounts.models import Membership, Publisher, User
from store.accounts.publishers import require_role
from store.catalog import search
from store.catalog.errors import InvalidListing, NameTaken, TransferOver
from store.catalog.models import FormerAddress, Listing, ListingRevision, Transfer, Version
from store.errors import Conflict, NotAllowed, NotFound
from store.notifications.messages import notify
from store.notifications.models import Notification

OWNER = Membership.Role.OWNER
VALID_FOR = timedelta(days=7)
State = Transfer.State


def offer(by: User, listing: Listing, *, to: str) -> Transfer:
    """Offers it to the publisher of that name in addresses. An offer that is open already is taken back.

    Raises InvalidListing for an unknown publisher or its own, Conflict while it is in review, NameTaken.
    """
    require_role(by, listing.publisher, OWNER)
    taker = Publisher.objects.filter(slug=to.strip().lower()[:60]).first()
    if taker is None or taker.pk == listing.publisher_id:
        raise InvalidListing(_("There is no other publisher of that name. Write it as in addresses."), param="to")
    with transaction.atomic():
        Listing.objects.select_for_update().get(pk=listing.pk)
        _require_free(listing, taker)
        Transfer.objects.filter(listing=listing, state=State.OPEN).update(state=State.REVOKED, answered_at=timezone.now())
        now = timezone.now()
        made = Transfer.objects.create(listing=listing, giver=listing.publisher, taker=taker, offered_by=by, expires_at=now + VALID_FOR)
        audit.record(by, "listing.offer", listing.public_id, transfer=made.public_id, to=taker.slug)
        notify(
            list(User.objects.filter(memberships__publisher=taker, memberships__role=OWNER)),
            Notification.Kind.TRANSFER_OFFERED,
            key=f"transfer:{made.public_id}",
            params={"publisher": listing.publisher.name, "subject": listing.full_name},
            url=f"/studio/transfers/{made.public_id}/",
        )
    return made


def revoke(by: User, made: Transfer) -> None:
    require_role(by, made.giver, OWNER)
    with transaction.atomic():
        _answer(made, State.REVOKED)
        audit.record(by, "listing.revoke_offer", made.listing.public_id, transfer=made.public_id)


def accept(user: User, made: Transfer) -> Listing:
    """Makes it the other publisher's. Raises TransferOver, NameTaken, and NotAllowed without a confirmed e-mail address."""
    require_role(user, made.taker, OWNER)
    if not has_confirmed_address(user):
        raise NotAllowed(_("Confirm your e-mail address first: what you take over, others rely on."))
    with transaction.atomic():
        listing = Listing.objects.select_for_update(of=("self",)).select_related("publisher").get(pk=made.listing_id)
        _answer(made, State.ACCEPTED)
        if listing.publisher_id != made.giver_id:
            raise TransferOver
        _require_free(listing, made.taker)
        FormerAddress.objects.filter(publisher=made.taker, slug=listing.slug, listing=listing).delete()  # it comes home
        FormerAddress.objects.create(publisher=made.giver, slug=listing.slug, listing=listing)
        try:
            with transaction.atomic():
                Listing.objects.filter(pk=listing.pk).update(publisher=made.taker)
        except IntegrityError as error:
            raise NameTaken(param="to") from error
        listing.refresh_from_db()
        audit.record(user, "listing.take_over", listing.public_id, transfer=made.public_id, of=made.giver.slug, by=made.taker.slug)
        search.outdate(search.built_on(listing))
        search.refresh(listing)
        _tell(made)
    return listing


def decline(user: User, made: Transfer) -> None:
    require_role(user, made.taker, OWNER)
    with transaction.atomic():
        _answer(made, State.DECLINED)
        audit.record(user, "listing.decline_offer", made.listing.public_id, transfer=made.public_id)
        _tell(made)


def open_offers() -> QuerySet[Transfer]:
    """What can still be answered."""
    found = Transfer.objects.filter(state=State.OPEN, expires_at__gt=timezone.now())
    return found.select_related("listing__publisher", "listing__live_revision", "giver", "taker", "offered_by")


def find(user: User, public_id: str) -> Transfer:
    """For owners of either side. Raises NotFound."""
    found = Transfer.objects.select_related("listing__publisher", "giver", "taker", "offered_by").filter(public_id=public_id).first()
    if found is None or OWNER not in (found.giver.role_of(user), found.taker.role_of(user)):
        raise NotFound
    return found


def moved(publisher: str, slug: str) -> Listing | None:
    """The GPT that once had this address, if there is one."""
    former = FormerAddress.objects.filter(publisher__slug=publisher, slug=slug).select_related("listing__publisher").first()
    return former.listing if former is not None else None


def _require_free(listing: Listing, taker: Publisher) -> None:
    """Its name with the other publisher, and itself of reviews: a reviewer decides about a publisher too."""
    others = FormerAddress.objects.filter(publisher=taker, slug=listing.slug).exclude(listing=listing)
    if Listing.objects.filter(publisher=taker, slug=listing.slug).exists() or others.exists():
        raise NameTaken(_("%(name)s has, or had, a GPT of this name in addresses.") % {"name": taker.name}, param="to")
    sealed = Version.State.SEALED, ListingRevision.State.SEALED
    if listing.versions.filter(state=sealed[0]).exists() or listing.revisions.filter(state=sealed[1]).exists():
        raise Conflict(_("It is in review. Wait for the decision, or withdraw the submission."))


def _answer(made: Transfer, state: Transfer.State) -> None:
    if not open_offers().filter(pk=made.pk).order_by().update(state=state, answered_at=timezone.now()):
        raise TransferOver
    made.state = state


def _tell(made: Transfer) -> None:
    """Who offered it, in their own language: what is kept is the state, which the message names when it is read."""
    params = {"publisher": made.taker.name, "subject": made.listing.full_name, "answer": made.state}
    notify([made.offered_by], Notification.Kind.TRANSFER_ANSWERED, key=f"transfer-answer:{made.public_id}", params=params, url="/studio/")
