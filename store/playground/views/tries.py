"""The tries of people without an account, counted by the network they come from too: a new cookie gives no new ones there.

How many one visitor has is counted where a generation is admitted (`store.generation.admission`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from store import ratelimit
from store.accounts.visitors import network_of
from store.errors import AWAY, DomainError, TooMany
from store.generation.errors import TriesUsedUp

DAY_S = 86_400


@contextmanager
def one_try(request: HttpRequest) -> Iterator[None]:
    """Takes one of the network's tries, and gives it back when what follows is refused. Raises TriesUsedUp."""
    if request.user.is_authenticated:
        yield
        return
    allowance = _of_network(request)
    try:
        ratelimit.require(**allowance)
    except TooMany as error:
        message = _("Today's tries without an account are used up where you are. Sign up to go on; it is free.")
        raise TriesUsedUp(message, retry_after_s=error.retry_after_s) from error
    try:
        yield
    except (DomainError, *AWAY):
        ratelimit.give_back(**allowance)
        raise


def left(request: HttpRequest, visitor: str) -> str:
    """How many tries the visitor has left, in words; nothing for who has an account."""
    if not visitor:
        return ""
    own = {"key": f"tries:visitor:{visitor}", "limit": settings.VISITOR_TRIES_PER_DAY, "per_s": DAY_S}
    count = min(ratelimit.take(**allowance, cost=0).remaining for allowance in (own, _of_network(request)))
    return ngettext("%(left)s try left today without an account", "%(left)s tries left today without an account", count) % {"left": count}


def _of_network(request: HttpRequest) -> dict[str, Any]:
    return {"key": f"tries:network:{network_of(request)}", "limit": settings.VISITOR_TRIES_PER_NETWORK, "per_s": DAY_S}
