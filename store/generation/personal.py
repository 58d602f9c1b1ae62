"""What the requests hold of a person."""

from __future__ import annotations

from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from store.accounts.models import User
from store.accounts.personal_data import Holding
from store.generation.models import Request

HOLDINGS = (Holding("generation.Request", kept=_("How many tokens each request had and what it cost, without a word of what was asked.")),)


def is_under_way(user: User) -> bool:
    return Request.objects.filter(user=user, state=Request.State.ADMITTED, deadline_at__gt=timezone.now()).exists()
