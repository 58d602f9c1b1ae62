"""What happened on an account: its movements, newest first, and what a publisher earned by listing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby
from typing import Any

from django.conf import settings
from django.db.models import Count, F, Q, QuerySet, Sum
from django.db.models.functions import Coalesce
from django.utils import timezone

from store.accounts.models import Membership, Publisher, User
from store.billing.models import Account, Entry, Reservation, Transaction

PERIOD = timedelta(days=30)
EARNINGS_ROLES = (Membership.Role.OWNER, Membership.Role.MAINTAINER)
MOST_ENTRIES = 3  # of one account in one transaction: lineage is at most three deep


@dataclass(frozen=True)
class Movement:
    """One transaction as one account sees it."""

    transaction: Transaction
    entries: list[Entry]

    @property
    def amount_micro(self) -> int:
        return sum(entry.amount_micro for entry in self.entries)

    @property
    def tokens(self) -> int | None:
        """Prompt and completion together, where tokens were measured."""
        counted = [self.transaction.detail.get(name) for name in ("prompt_tokens", "completion_tokens")]
        return sum(counted) if all(isinstance(count, int) for count in counted) else None


@dataclass(frozen=True)
class Statement:
    movements: list[Movement]
    before: str  # public id of the transaction to ask for the next page with; "" on the last one


def statement(account: Account, *, before: str = "", size: int = 25) -> Statement:
    """The account's newest `size` movements older than the transaction `before`; an unknown one begins at the top."""
    entries = Entry.objects.filter(account=account).select_related("transaction", "version__listing__publisher")
    if before and (last := Transaction.objects.filter(public_id=before).values_list("pk", flat=True).first()):
        entries = entries.filter(transaction__lt=last)
    found = entries.order_by("-transaction_id", "-id")[: MOST_ENTRIES * (size + 1)]
    movements = [Movement(rows[0].transaction, rows) for rows in (list(group) for _, group in groupby(found, lambda e: e.transaction_id))]
    return Statement(movements[:size], movements[size - 1].transaction.public_id if len(movements) > size else "")


def receipt(user: User, public_id: str) -> Movement | None:
    """A transaction on the user's own wallet."""
    entries = Entry.objects.filter(account__user=user, transaction__public_id=public_id)
    found = list(entries.select_related("transaction", "version__listing__publisher"))
    return Movement(found[0].transaction, found) if found else None


def held(account: Account) -> QuerySet[Reservation]:
    """What is set aside for work under way."""
    return account.reservations.filter(state=Reservation.State.HELD).order_by("-id")[:20]


def spent_micro(account: Account) -> int:
    """What a wallet paid within PERIOD."""
    paid = Entry.objects.filter(account=account, reason=Entry.Reason.USAGE, transaction__created_at__gt=timezone.now() - PERIOD)
    return -paid.aggregate(total=Coalesce(Sum("amount_micro"), 0))["total"]


def earned_by_listing(account: Account) -> list[dict[str, Any]]:
    """Each listing's part of what was earned within PERIOD: `name`, `direct_micro`, `ancestor_micro`, `total_micro`, `uses`."""
    recent = Entry.objects.filter(account=account, transaction__created_at__gt=timezone.now() - PERIOD, version__isnull=False)
    rows = recent.values(publisher=F("version__listing__publisher__slug"), slug=F("version__listing__slug")).annotate(
        direct_micro=Coalesce(Sum("amount_micro", filter=Q(reason=Entry.Reason.LISTING_SHARE)), 0),
        ancestor_micro=Coalesce(Sum("amount_micro", filter=Q(reason=Entry.Reason.ANCESTOR_SHARE)), 0),
        total_micro=Sum("amount_micro"),
        uses=Count("transaction", distinct=True),
    )
    return [dict(row) for row in rows.order_by("-total_micro", "publisher", "slug")]


def publishers_whose_money(user: User) -> QuerySet[Publisher]:
    """The publishers whose earnings the user may see."""
    return Publisher.objects.filter(memberships__user=user, memberships__role__in=EARNINGS_ROLES)


def shares() -> dict[str, int]:
    """How a charge is divided, in percent of what is said in the name."""
    return {"platform": settings.PLATFORM_SHARE_PERCENT, "ancestor_of_rest": settings.ANCESTOR_SHARE_PERCENT}
