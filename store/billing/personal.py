"""What the accounts hold of a person."""

from __future__ import annotations

from django.utils.translation import gettext_lazy as _

from store.accounts.models import User
from store.accounts.personal_data import Holding
from store.billing.models import Access

_SUMS = _("What was paid and earned: books whose entries sum to zero. Credit that is left can't be used any more.")
HOLDINGS = (
    Holding("billing.Account", kept=_SUMS),
    Holding("billing.Entry", "account__user", kept=_SUMS),
    Holding("billing.Reservation", "account__user", kept=_SUMS),
    Holding("billing.Access", kept=_SUMS),
)


def renew_nothing(user: User) -> None:
    """What was bought for a month ends with it."""
    Access.objects.filter(user=user).update(renews=False)
