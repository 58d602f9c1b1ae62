"""A person's own lists of GPTs: made, changed, filled and shared by them alone.

Staff feature a shared one on home as it was when they looked. Whatever changes what it says or holds ends that; its order alone does not.
"""

from __future__ import annotations

from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.utils.translation import gettext_lazy as _

from store.accounts.models import User
from store.catalog.models import Collection, CollectionItem, Listing
from store.catalog.revisions import clean_text
from store.errors import Conflict, DomainError, NotFound

MOST, MOST_ITEMS = 50, 100  # of one person; in one collection


class InvalidCollection(DomainError):
    code = "invalid_collection"


class NameInUse(Conflict):
    code = "collection_exists"
    message = _("You have a collection of this name. Choose another one.")


class EnoughCollections(Conflict):
    code = "enough_collections"
    message = _("You have as many collections as one person can. Delete one, then make this one.")


class CollectionFull(Conflict):
    code = "collection_full"
    message = _("This collection holds as many GPTs as it can. Take one out, then add this one.")


def create(user: User, *, name: str, about: str = "", is_public: bool = False) -> Collection:
    """Raises InvalidCollection, NameInUse, EnoughCollections."""
    fields = _cleaned(name, about)
    with transaction.atomic():
        User.objects.select_for_update().get(pk=user.pk)  # one after the other, so that MOST is the most
        if Collection.objects.filter(user=user).count() >= MOST:
            raise EnoughCollections
        try:
            with transaction.atomic():
                return Collection.objects.create(user=user, is_public=is_public, **fields)
        except IntegrityError as error:
            raise NameInUse(param="name") from error


def edit(user: User, public_id: str, *, name: str, about: str, is_public: bool) -> None:
    """Raises NotFound for what is not the person's own, InvalidCollection, NameInUse."""
    fields = _cleaned(name, about)
    try:
        with transaction.atomic():
            mine = Collection.objects.filter(user=user, public_id=public_id)
            _end_featuring(mine.exclude(name=fields["name"], about=fields["about"]))
            if not mine.update(is_public=is_public, **fields):
                raise NotFound
    except IntegrityError as error:
        raise NameInUse(param="name") from error


def delete(user: User, public_id: str) -> None:
    if not Collection.objects.filter(user=user, public_id=public_id).delete()[0]:
        raise NotFound


def put(user: User, public_id: str, listing: Listing) -> Collection:
    """Adds a listing that the person can see, once however often. Raises NotFound, CollectionFull."""
    if not Listing.objects.reachable_by(user).filter(pk=listing.pk).exists():
        raise NotFound
    with transaction.atomic():
        collection = Collection.objects.select_for_update().filter(user=user, public_id=public_id).first()
        if collection is None:
            raise NotFound
        items = CollectionItem.objects.filter(collection=collection)
        if items.filter(listing=listing).exists():
            return collection
        if items.count() >= MOST_ITEMS:
            raise CollectionFull
        CollectionItem.objects.create(collection=collection, listing=listing)
        _end_featuring(Collection.objects.filter(pk=collection.pk))
    return collection


def take_out(user: User, public_id: str, listing_id: str) -> None:
    """`listing_id`: its public id, which also finds what was taken down meanwhile."""
    mine = Collection.objects.filter(user=user, public_id=public_id)
    with transaction.atomic():
        if not CollectionItem.objects.filter(collection__in=mine, listing__public_id=listing_id).delete()[0]:
            raise NotFound
        _end_featuring(mine)


def annotate(user: User, public_id: str, listing_id: str, *, note: str) -> None:
    """Says why it is in the collection. Raises NotFound and what a text that can't be kept raises."""
    note = " ".join(clean_text(note, param="note", limit=CollectionItem.NOTE_CHARS).split())
    mine = Collection.objects.filter(user=user, public_id=public_id)
    own = CollectionItem.objects.filter(collection__in=mine, listing__public_id=listing_id)
    with transaction.atomic():
        if own.exclude(note=note).update(note=note):
            _end_featuring(mine)
        elif not own.exists():
            raise NotFound


def move(user: User, public_id: str, listing_id: str, *, by: int) -> None:
    """Moves it one place towards the beginning (-1) or the end (1). Raises NotFound."""
    with transaction.atomic():
        if not Collection.objects.select_for_update().filter(user=user, public_id=public_id).exists():
            raise NotFound
        items = list(CollectionItem.objects.filter(collection__public_id=public_id).select_related("listing"))
        at = next((number for number, item in enumerate(items) if item.listing.public_id == listing_id), None)
        if at is None:
            raise NotFound
        items.insert(min(max(at + by, 0), len(items)), items.pop(at))
        for place, item in enumerate(items, 1):
            item.place = place
        CollectionItem.objects.bulk_update(items, ["place"])


def _end_featuring(collections: QuerySet[Collection]) -> None:
    collections.exclude(featured=0).update(featured=0)


def _cleaned(name: str, about: str) -> dict[str, str]:
    name = " ".join(clean_text(name, param="name", limit=Collection.NAME_CHARS).split())
    if not name:
        raise InvalidCollection(_("Give the collection a name."), param="name")
    return {"name": name, "about": " ".join(clean_text(about, param="about", limit=Collection.ABOUT_CHARS).split())}
