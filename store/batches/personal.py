"""What the batches hold of a person."""

from __future__ import annotations

from django.utils.translation import gettext_lazy as _

from store.accounts.models import User
from store.accounts.personal_data import Holding
from store.batches.models import Batch

_COSTS = _("Which batches ran, how many tokens they had and what they cost.")
HOLDINGS = (Holding("batches.Batch", kept=_COSTS, hidden=frozenset({"shards"})),)


def is_under_way(user: User) -> bool:
    return Batch.objects.filter(user=user).exclude(state__in=Batch.ENDED).exists()


def forget(user: User) -> None:
    """What the person named: their files go with the account."""
    Batch.objects.filter(user=user).update(name="", metadata={}, shards=[], errors=[])
