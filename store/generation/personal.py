"""What the requests hold of a person."""

from __future__ import annotations

from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from store.accounts.models import User
from store.accounts.personal_data import Holding
from store.generation.models import Request

_COSTS = _("How many tokens each request had and what it cost, without a word of what was asked.")
HOLDINGS = (
    Holding("generation.Request", where=~Q(source=Request.Source.ARENA), kept=_COSTS),
    Holding("generation.Request", where=Q(source=Request.Source.ARENA), part="arena", kept=_COSTS, hidden=frozenset({"version"})),
)


def is_under_way(user: User) -> bool:
    return Request.objects.filter(user=user, state=Request.State.ADMITTED, deadline_at__gt=timezone.now()).exists()
