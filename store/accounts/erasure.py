"""Deleting one's account: asked for, taken back within two weeks, and done by the store once they are over.

What is left is an account that names nobody. Rows that others rely on point to it: the accounts must still sum up, a released
version still has an author, an audited act still an actor. Everything else goes.
"""

from __future__ import annotations

from datetime import timedelta

import structlog
from django.db import transaction
from django.db.models import Count, Exists, OuterRef, Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from store.accounts import audit, personal_data, tasks
from store.accounts.models import Invitation, Membership, Publisher, User
from store.errors import Conflict

log = structlog.get_logger(__name__)
GRACE = timedelta(days=14)
BATCH = 20  # people erased in one go


class OwnsPublishers(Conflict):
    code = "owns_publishers"
    message = _("You are the only owner of a publisher. Hand it over, or make somebody else an owner, first.")


class OperatesTheStore(Conflict):
    code = "operates_the_store"
    message = _("This account operates the store. Another operator has to take that from it first.")


def in_the_way(user: User) -> QuerySet[Publisher]:
    """Publishers that would have no owner, and list something or have other members: somebody has to take them over first.

    What is unlisted is not in the way: it goes on answering who has its address and what was built on it.
    """
    others = Count("memberships", filter=Q(memberships__role=Membership.Role.OWNER) & ~Q(memberships__user=user))
    owned = Publisher.objects.filter(memberships__user=user, memberships__role=Membership.Role.OWNER).values("pk")
    alone = Publisher.objects.filter(pk__in=owned).annotate(other_owners=others).filter(other_owners=0)
    shown = Q(listings__visibility="public") | Q(memberships__in=Membership.objects.exclude(user=user))
    return alone.filter(shown).distinct().order_by("slug")


def ask(user: User) -> None:
    """The account is deleted in two weeks, unless its owner keeps it. Raises OwnsPublishers and OperatesTheStore."""
    _require_may_go(user)
    due = timezone.now() + GRACE
    with transaction.atomic():
        if User.objects.filter(pk=user.pk, erasure_due_at__isnull=True).update(erasure_due_at=due):
            audit.record(user, "user.ask_erasure", user.public_id)
            transaction.on_commit(lambda: tasks.send_erasure_asked.delay(user.public_id), robust=True)


def keep(user: User) -> None:
    """Takes it back. Nothing had changed."""
    with transaction.atomic():
        if User.objects.filter(pk=user.pk, erasure_due_at__isnull=False, erased_at__isnull=True).update(erasure_due_at=None):
            audit.record(user, "user.keep_account", user.public_id)


def erase_due() -> int:
    """What beat calls for: whose two weeks are over; how many were erased. What is in the way then is tried again later."""
    due = User.objects.filter(erasure_due_at__lte=timezone.now(), erased_at__isnull=True).order_by("erasure_due_at")
    return sum(_erase_or_wait(user) for user in due[:BATCH])


def _erase_or_wait(user: User) -> bool:
    try:
        return erase(user)
    except Conflict as error:
        log.warning("account not erased yet", user=user.public_id, reason=error.code)
        return False


def erase(user: User) -> bool:
    """All at once, or nothing; False while something of theirs is under way. Raises OwnsPublishers and OperatesTheStore."""
    with transaction.atomic():
        locked = User.objects.select_for_update().get(pk=user.pk)
        if locked.erased_at is not None or personal_data.is_under_way(locked):
            return False
        _require_may_go(locked)
        address, language = locked.email, locked.language
        for act in personal_data.acts_before_erasure():
            act(locked)
        _leave_publishers(locked)
        for holding in personal_data.holdings():
            if not holding.kept:
                holding.rows(locked).delete()
        Invitation.objects.filter(email=address.lower()).delete()  # which others sent to them
        _name_nobody(locked)
        audit.record(None, "user.erase", locked.public_id)
        transaction.on_commit(lambda: tasks.send_erased.delay(address, language), robust=True)
    return True


def _require_may_go(user: User) -> None:
    if user.is_superuser or user.is_staff:
        raise OperatesTheStore
    if in_the_way(user).exists():
        raise OwnsPublishers


def _leave_publishers(user: User) -> None:
    """A publisher that nobody belongs to any more shows nothing and may be named after its person: it loses that name.

    In addresses it keeps it where it gave a GPT away, which is called by that address still.
    """
    gave_away = Exists(Publisher.objects.filter(pk=OuterRef("pk"), former_addresses__isnull=False))
    for publisher in Publisher.objects.filter(memberships__user=user).annotate(gave_away=gave_away):
        if not publisher.memberships.exclude(user=user).exists():
            name = publisher.public_id.lower().replace("_", "-")  # nobody can have taken it
            slug = publisher.slug if publisher.gave_away else name
            nothing = {"about": "", "domain": "", "verified_at": None, "skeleton": "", "folded_skeleton": ""}
            Publisher.objects.filter(pk=publisher.pk).update(slug=slug, name=name, **nothing)


def _name_nobody(user: User) -> None:
    nobody = f"deleted-{user.public_id}"  # nobody can have taken it
    user.groups.clear()
    user.user_permissions.clear()
    User.objects.filter(pk=user.pk).update(
        username=nobody,
        email=f"{nobody}@invalid.example",
        first_name="",
        last_name="",
        password="!",  # no password fits
        is_active=False,
        last_login=None,
        erased_at=timezone.now(),
    )
