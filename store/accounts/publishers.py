"""Publishers and their members: who may act for whom."""

from __future__ import annotations

import unicodedata
from typing import Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from store.accounts import audit, lookalikes
from store.accounts.models import Membership, Publisher, User, slug_validator
from store.errors import Conflict, DomainError, NotAllowed, NotFound

OWNER = Membership.Role.OWNER
MAINTAINER = Membership.Role.MAINTAINER
MEMBER = Membership.Role.MEMBER
PUBLISHERS_PER_USER = 20

# Names that look like the store's own or like parts of its addresses.
# fmt: off
RESERVED_SLUGS = frozenset({
    "about", "account", "accounts", "admin", "api", "assets", "auth", "batches", "billing", "blog", "chat",
    "chats", "compare", "docs", "en", "explore", "ft", "gpt-store", "help", "home", "hub",
    "inbox", "legal", "listing", "listings", "login", "logout", "me", "metrics", "models", "new",
    "official", "openai", "playground", "pricing", "privacy", "publisher", "publishers", "ratings", "review", "root",
    "search", "security", "settings", "signup", "static", "status", "store", "studio", "support", "system",
    "terms", "user", "users", "v1", "wallet", "www", "zh", "zh-hans",
})
# fmt: on


class InvalidPublisher(DomainError):
    code = "invalid_publisher"


class SlugTaken(Conflict):
    code = "slug_taken"
    message = _("This name is taken. Choose another one.")


class LastOwner(Conflict):
    code = "last_owner"
    message = _("A publisher needs an owner. Make somebody else an owner first.")


def create_publisher(
    user: User, *, slug: str, name: str, kind: str = Publisher.Kind.ORGANISATION, about: str = "", is_demo: bool = False
) -> Publisher:
    """A new publisher whose owner is `user`. People and organisations share one namespace of slugs."""
    slug, name, about = slug.strip().lower(), name.strip(), about.strip()
    try:
        slug_validator(slug)
    except ValidationError as error:
        raise InvalidPublisher(error.message, param="slug") from error
    if slug in RESERVED_SLUGS:
        raise SlugTaken(param="slug")
    if not 1 <= len(name) <= 80 or not name.isprintable() or not lookalikes.skeletons(name)[0]:
        raise InvalidPublisher(_("Give the publisher a name of 1 to 80 characters."), param="name")
    if not lookalikes.is_seen_as_written(name):
        raise InvalidPublisher(_("The name holds characters that hide or turn around what is written. Leave them out."), param="name")
    if kind not in Publisher.Kind.values:
        raise InvalidPublisher(_("A publisher is a person or an organisation."), param="kind")
    if len(about) > 2000:
        raise InvalidPublisher(_("Describe the publisher in at most 2,000 characters."), param="about")

    with transaction.atomic():
        check_may_own_another(user)
        alike = _require_own_names(user, slug=slug, name=name)
        try:
            with transaction.atomic():
                publisher = Publisher.objects.create(slug=slug, name=name, kind=kind, about=about, is_demo=is_demo, **alike)
        except IntegrityError as error:
            raise SlugTaken(param="slug") from error
        Membership.objects.create(publisher=publisher, user=user, role=OWNER)
        audit.record(user, "publisher.create", publisher.public_id, slug=slug)
    return publisher


def _require_own_names(user: User, *, slug: str, name: str) -> dict[str, str]:
    """What the names look like, for the row. Raises InvalidPublisher where a publisher of other people would be taken for this one.

    Two may have the same name, written the same, as people do: but not that of a verified one, and nobody another's in other letters.
    """
    (skeleton, folded), (_as_written, of_slug) = lookalikes.skeletons(name), lookalikes.skeletons(slug)
    others = Publisher.objects.exclude(members=user)
    if others.filter(slug_skeleton=of_slug).exclude(slug=slug).exists():
        raise InvalidPublisher(_("This looks like the name of another publisher. Choose one that can't be mistaken for it."), param="slug")
    both = [skeleton, folded]
    for other in others.filter(Q(skeleton__in=both) | Q(folded_skeleton__in=both)).order_by("pk")[:100]:
        if other.verified_at is not None or _plain(other.name) != _plain(name):
            message = _("This looks like the name of another publisher. Choose one that can't be mistaken for it.")
            raise InvalidPublisher(message, param="name")
    return {"skeleton": skeleton, "folded_skeleton": folded, "slug_skeleton": of_slug}


def _plain(name: str) -> str:
    return " ".join(unicodedata.normalize("NFC", name).casefold().split())


def check_may_own_another(user: User) -> None:
    """Within a transaction, in which nobody else makes this person an owner meanwhile."""
    User.objects.select_for_update().get(pk=user.pk)
    if Membership.objects.filter(user=user, role=OWNER).count() >= PUBLISHERS_PER_USER:
        raise Conflict(_("You own the largest number of publishers already."))


def require_role(user: Any, publisher: Publisher, *roles: str) -> None:
    """Passes when `user` is a member in one of `roles` (in any role, when none is named).

    Raises NotFound for who is not a member at all, so that a stranger learns nothing, NotAllowed for a member in another role.
    """
    role = publisher.role_of(user)
    if role is None:
        raise NotFound
    if roles and role not in roles:
        raise NotAllowed


def add_member(by: User, publisher: Publisher, *, user: User, role: str) -> Membership:
    """Makes `user` a member, or gives a member another role. For owners."""
    require_role(by, publisher, OWNER)
    if role not in Membership.Role.values:
        raise InvalidPublisher(_("Choose one of the roles."), param="role")
    with transaction.atomic():
        Publisher.objects.select_for_update().get(pk=publisher.pk)
        if role != OWNER:
            _require_another_owner(publisher, user)
        membership, _created = Membership.objects.update_or_create(publisher=publisher, user=user, defaults={"role": role})
        audit.record(by, "publisher.add_member", publisher.public_id, user=user.public_id, role=role)
    return membership


def remove_member(by: User, publisher: Publisher, *, user: User) -> None:
    """Ends a membership. Owners may remove anybody, every member themselves, but never the last owner."""
    if by.pk != user.pk:
        require_role(by, publisher, OWNER)
    with transaction.atomic():
        Publisher.objects.select_for_update().get(pk=publisher.pk)
        _require_another_owner(publisher, user)
        removed, _rows = Membership.objects.filter(publisher=publisher, user=user).delete()
        if not removed:
            raise NotFound
        audit.record(by, "publisher.remove_member", publisher.public_id, user=user.public_id)


def _require_another_owner(publisher: Publisher, user: User) -> None:
    owners = set(Membership.objects.filter(publisher=publisher, role=OWNER).values_list("user_id", flat=True))
    if owners == {user.pk}:
        raise LastOwner
