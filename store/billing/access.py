"""Monthly access: paid once, a GPT's own price per token is not asked of that person for 30 days, within a number of tokens.

It covers what the GPT itself asks, in chats and through the API. What it builds on asks per token as before, so its publishers earn
at least what direct use would bring them; batches are paid by the token. When the tokens are used up, the price per token
holds again. Nothing renews itself unless its buyer says so, and then at no other price than they agreed to.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import F, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from store.accounts.models import User
from store.billing import ledger, prices
from store.billing.errors import AccessNotOffered, NoRefund
from store.billing.models import Access, Account, Entry, Transaction
from store.billing.prices import Due, Price
from store.catalog.models import Listing, Version
from store.errors import Conflict, DomainError, NotFound
from store.notifications.messages import notify
from store.notifications.models import Notification

PERIOD = timedelta(days=30)
REFUND_WITHIN = timedelta(days=2)
REFUND_UP_TO_PERCENT = 5  # of the tokens


_in_use: list[Callable[[Access], bool]] = []


def buy(user: User, listing: Listing, *, price_micro: int, tokens: int) -> Access:
    """Charges the wallet and begins access now; who has access already is charged nothing and gets what they have.

    `price_micro` and `tokens` are what the buyer was shown. Raises AccessNotOffered, InsufficientCredit, and Conflict when either is
    another by now.
    """
    with transaction.atomic():
        wallet = ledger.wallet_of(user)
        Account.objects.select_for_update().get(pk=wallet.pk)  # a press on the button twice buys once
        if (running := of(user, listing)) is not None:
            return running
        now = Listing.objects.select_related("publisher", "current_version").get(pk=listing.pk)
        version = now.current_version
        if not now.monthly_price_micro or version is None or not Version.objects.usable_by(user).filter(pk=version.pk).exists():
            raise AccessNotOffered
        if now.publisher.role_of(user) is not None:
            raise AccessNotOffered(_("You belong to its publisher, so it asks nothing of you."))
        if (now.monthly_price_micro, now.monthly_tokens) != (price_micro, tokens):
            raise Conflict(_("Its price has changed meanwhile. Look at it again before you pay."))
        return _charge(user, now, version)


def _charge(user: User, listing: Listing, version: Version) -> Access:
    begins = timezone.now()
    bought = Access.objects.create(
        user=user,
        listing=listing,
        price_micro=listing.monthly_price_micro,
        tokens=listing.monthly_tokens,
        starts_at=begins,
        ends_at=begins + PERIOD,
    )
    ledger.reserve(user, cause=bought.cause, amount_micro=bought.price_micro, expires_at=begins + timedelta(minutes=5))
    ledger.settle(bought.cause, amount_micro=bought.price_micro, version=version, memo=listing.full_name)
    return bought


def of(user: User, listing: Listing) -> Access | None:
    """The access that the person has now, used up or not."""
    return running(user).filter(listing=listing).first()


def running(user: User) -> QuerySet[Access]:
    now = timezone.now()
    mine = Access.objects.filter(user=user, starts_at__lte=now, ends_at__gt=now, refunded_at=None)
    return mine.select_related("listing__publisher", "listing__current_version")


def due(version: Version, person: User | None) -> tuple[Due, Access | None]:
    """What this person pays for a chat or a request by the API, and the access that pays for the GPT's own part, if one does."""
    whole = prices.due(version, person)
    if person is None or not any(part == version.public_id for part in whole.parts):
        return whole, None
    held = of(person, version.listing)
    if held is None or held.is_used_up:
        return whole, None
    parts = {part: price for part, price in whole.parts.items() if part != version.public_id}
    return Due(sum(parts.values(), Price()), parts), held


def hold(access: Access) -> None:
    """Before something begins that it pays for: until the transaction ends it is not given back. Raises Conflict when it was meanwhile."""
    if not Access.objects.filter(pk=access.pk, refunded_at=None).update(refunded_at=None):
        raise Conflict(_("Your 30 days of it have just been given back. Ask again."))


def count(access_id: int, tokens: int) -> None:
    """Of a use that it covered. What was admitted before the tokens were used up is covered whole."""
    Access.objects.filter(pk=access_id).update(tokens_used=F("tokens_used") + tokens)


def set_renewal(user: User, public_id: str, *, renews: bool) -> None:
    """Raises NotFound for what is over, or anybody else's."""
    if not running(user).filter(public_id=public_id).update(renews=renews):
        raise NotFound


# ---------------------------------------------------------------- giving back


def keep_while(function: Callable[[Access], bool]) -> None:
    """Nothing is given back while `function(access)` holds: something is under way that it pays for."""
    if function not in _in_use:
        _in_use.append(function)


def refundable_micro(access: Access, now: datetime | None = None) -> int:
    """All of it soon after it was bought and while it is hardly used, once for each GPT; for the days and tokens left when the GPT was
    taken down; else nothing.
    """
    now = now or timezone.now()
    if access.refunded_at is not None or now >= access.ends_at:
        return 0
    is_new = now - access.starts_at <= REFUND_WITHIN and access.tokens_used * 100 <= access.tokens * REFUND_UP_TO_PERCENT
    if is_new and not Access.objects.filter(user=access.user_id, listing=access.listing_id, refunded_at__isnull=False).exists():
        return access.price_micro
    version = access.listing.current_version
    if version is None or not Version.objects.available().filter(pk=version.pk).exists():
        for_days = access.price_micro * ((access.ends_at - now) // timedelta(days=1)) // PERIOD.days
        for_tokens = access.price_micro * max(access.tokens - access.tokens_used, 0) // access.tokens
        return min(for_days, for_tokens)
    return 0


def refund(user: User, public_id: str) -> Transaction:
    """Ends the access and takes back from each who got a share as much of it. Raises NotFound and NoRefund."""
    with transaction.atomic():
        access = Access.objects.select_for_update(of=("self",)).filter(user=user, public_id=public_id).first()
        if access is None:
            raise NotFound
        if any(function(access) for function in _in_use):
            raise NoRefund(_("An answer is under way that it pays for. Try again when it has ended."))
        amount_micro = refundable_micro(access)
        if not amount_micro or not Access.objects.filter(pk=access.pk, refunded_at=None).update(refunded_at=timezone.now(), renews=False):
            raise NoRefund
        shares = list(Entry.objects.filter(transaction__cause=access.cause, amount_micro__gt=0).select_related("account", "version"))
        back = [share.amount_micro * amount_micro // access.price_micro for share in shares]
        lines = [
            ledger.Line(share.account, -part, Entry.Reason(share.reason), share.version) for share, part in zip(shares, back, strict=True)
        ]
        lines.append(ledger.Line(ledger.wallet_of(user), sum(back), Entry.Reason.CREDIT))
        cause = f"refund:{access.public_id}"
        return ledger.post(Transaction.Kind.REFUND, cause=cause, lines=lines, memo=access.listing.full_name)[0]


# ---------------------------------------------------------------- the end, and renewal


def end_due(limit: int = 200) -> int:
    """Renews what its buyer wants renewed, and tells everybody whose access has ended; how many had."""
    over = Access.objects.filter(ends_at__lte=timezone.now(), ended_at=None).select_related("user", "listing__publisher")
    ended = list(over.order_by("ends_at")[:limit])
    for access in ended:
        _end(access)
    return len(ended)


def _end(access: Access) -> None:
    with transaction.atomic():
        if not Access.objects.filter(pk=access.pk, ended_at=None).update(ended_at=timezone.now()) or access.refunded_at is not None:
            return
        kind = Notification.Kind.ACCESS_RENEWED if access.renews and _renewed(access) else Notification.Kind.ACCESS_ENDED
        params = {"subject": access.listing.full_name}
        notify([access.user], kind, key=f"access:{access.public_id}", params=params, url="/wallet/")


def _renewed(access: Access) -> bool:
    """At the price that was agreed, or not at all."""
    try:
        with transaction.atomic():
            again = buy(access.user, access.listing, price_micro=access.price_micro, tokens=access.tokens)
            Access.objects.filter(pk=again.pk).update(renews=True)
    except DomainError:
        return False
    return True
