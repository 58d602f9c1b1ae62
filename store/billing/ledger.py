"""The ledger: every movement of money is one transaction, named by its cause, whose entries sum to zero.

Each act is safe to repeat and to run beside itself. What decides a race is one statement in the database: the unique
cause of a transaction or reservation, the reservation's `UPDATE … WHERE state = 'held'`, or the wallet's
`UPDATE … WHERE balance - held >= amount`. Accounts are updated in one order everywhere, wallets first, so that two
transactions never wait for each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import F, QuerySet
from django.utils import timezone

from store.accounts import audit
from store.accounts.models import Publisher, User
from store.billing import shares
from store.billing.errors import InsufficientCredit, InvalidAmount
from store.billing.models import Account, Entry, Reservation, Transaction
from store.billing.prices import Price
from store.catalog.models import Version
from store.errors import Conflict, NotAllowed

MAX_GRANT_MICRO = 1_000_000_000_000
KEPT_FOR = timedelta(days=1)  # at a time, while what it is for is under way

_under_way: dict[Transaction.Kind, Callable[[str], bool]] = {}


@dataclass(frozen=True)
class Line:
    """One entry to be written: `amount_micro` is added to the account's balance."""

    account: Account
    amount_micro: int
    reason: Entry.Reason
    version: Version | None = None


def wallet_of(user: User) -> Account:
    """The user's wallet, made empty on first use."""
    return Account.objects.get_or_create(kind=Account.Kind.WALLET, user=user)[0]


def earnings_of(publisher: Publisher) -> Account:
    """What the store owes the publisher, made empty on first use."""
    return Account.objects.get_or_create(kind=Account.Kind.EARNINGS, publisher=publisher)[0]


def grant(by: User | None, user: User, amount_micro: int, *, cause: str, memo: str = "") -> Transaction:
    """Give credit as an operator; `by` is None only for whoever can run commands on the store's machine.

    Raises NotAllowed, InvalidAmount, and Conflict when the cause already names another grant.
    """
    if by is not None and not by.has_perm("billing.grant_credit"):
        raise NotAllowed
    if not 0 < amount_micro <= MAX_GRANT_MICRO:
        raise InvalidAmount
    with transaction.atomic():
        wallet = wallet_of(user)
        source = Account.objects.get_or_create(kind=Account.Kind.GRANTS)[0]
        lines = [Line(wallet, amount_micro, Entry.Reason.CREDIT), Line(source, -amount_micro, Entry.Reason.CREDIT)]
        posted, created = post(Transaction.Kind.GRANT, cause=cause, lines=lines, memo=memo)
        if created:
            audit.record(by, "billing.grant", user.public_id, amount_micro=amount_micro, transaction=posted.public_id, memo=memo)
        elif not posted.entries.filter(account=wallet, amount_micro=amount_micro).exists():
            raise Conflict
    return posted


def reserve(user: User, *, cause: str, amount_micro: int, expires_at: datetime, parts: Mapping[str, Price] | None = None) -> Reservation:
    """Hold the most that `cause` can cost. The same cause again returns the reservation that is there.

    `parts` is who asked for how much of it, as `prices.due` says: agreed now, shared out when it is settled. Raises
    InsufficientCredit when the wallet can't cover it, and Conflict when the cause is held for something else.
    """
    kind_of(cause)
    asks = {version: [price.input_micro, price.output_micro] for version, price in (parts or {}).items()}
    with transaction.atomic():
        wallet = wallet_of(user)
        reservation, created = Reservation.objects.get_or_create(
            cause=cause, defaults={"account": wallet, "amount_micro": amount_micro, "expires_at": expires_at, "asks": asks}
        )
        if not created:
            if (reservation.account_id, reservation.amount_micro) != (wallet.pk, amount_micro):
                raise Conflict
            return reservation
        covered = Account.objects.filter(pk=wallet.pk, balance_micro__gte=F("held_micro") + amount_micro)
        if not covered.update(held_micro=F("held_micro") + amount_micro):
            wallet.refresh_from_db()
            raise InsufficientCredit(needed_micro=amount_micro, available_micro=wallet.available_micro)
    return reservation


def settle(
    cause: str, *, amount_micro: int, version: Version | None, memo: str = "", detail: dict[str, Any] | None = None
) -> Transaction | None:
    """Charge what it really cost, never above what was reserved, and share it out. `version` is what was used.

    Returns the transaction, also when it was settled before; None when nothing was charged: it cost nothing, or the
    reservation was voided or never made.
    """
    with transaction.atomic():
        reservation = Reservation.objects.select_related("account").filter(cause=cause).first()
        if reservation is None:
            return None
        charged = min(max(amount_micro, 0), reservation.amount_micro)
        held = Reservation.objects.filter(pk=reservation.pk, state=Reservation.State.HELD)
        if not held.update(state=Reservation.State.SETTLED, settled_micro=charged):
            return Transaction.objects.filter(cause=cause).first()
        _release(reservation)
        if charged == 0:
            return None
        payer = Line(reservation.account, -charged, Entry.Reason.USAGE, version)
        lines = [payer, *_shares(charged, version, asks=reservation.asks, tokens=detail or {})]
        return post(kind_of(cause), cause=cause, lines=lines, memo=memo, detail=detail)[0]


def void(cause: str) -> bool:
    """Give back what was reserved; whether this call did it."""
    return _void(Reservation.objects.filter(cause=cause))


def renew(cause: str, *, expires_at: datetime) -> bool:
    """Hold it for longer; whether it is still held."""
    return bool(Reservation.objects.filter(cause=cause, state=Reservation.State.HELD).update(expires_at=expires_at))


def keep_while(kind: Transaction.Kind, under_way: Callable[[str], bool]) -> None:
    """Reservations of this kind do not run out while `under_way(cause)`. For higher apps, in `AppConfig.ready`."""
    _under_way[kind] = under_way


def void_expired(limit: int = 500) -> int:
    """Void up to `limit` reservations that nobody settled in time; how many. What is under way keeps its own."""
    now = timezone.now()
    expired = Reservation.objects.filter(state=Reservation.State.HELD, expires_at__lt=now).order_by("expires_at")
    return sum(_run_out(cause, now) for cause in expired.values_list("cause", flat=True)[:limit])


def _run_out(cause: str, now: datetime) -> bool:
    under_way = _under_way.get(kind_of(cause))
    if under_way is not None and under_way(cause):
        renew(cause, expires_at=now + KEPT_FOR)
        return False
    return _void(Reservation.objects.filter(cause=cause, expires_at__lt=now))  # unless it was renewed since


def _void(reservations: QuerySet[Reservation]) -> bool:
    with transaction.atomic():
        reservation = reservations.first()
        held = reservations.filter(state=Reservation.State.HELD)
        if reservation is None or not held.update(state=Reservation.State.VOIDED):
            return False
        _release(reservation)
    return True


def post(
    kind: Transaction.Kind, *, cause: str, lines: Iterable[Line], memo: str = "", detail: dict[str, Any] | None = None
) -> tuple[Transaction, bool]:
    """Write a transaction and move the balances with it; the one of this cause and False when there already is one.

    Raises ValueError when the lines do not sum to zero. Lines of nothing are left out.
    """
    written = [line for line in lines if line.amount_micro]
    if sum(line.amount_micro for line in written):
        raise ValueError(f"the entries of {cause} do not sum to zero")
    with transaction.atomic():
        posted, created = Transaction.objects.get_or_create(
            cause=cause, defaults={"kind": kind, "memo": memo[:200], "detail": detail or {}}
        )
        if not created:
            return posted, False
        Entry.objects.bulk_create(
            Entry(transaction=posted, account=line.account, amount_micro=line.amount_micro, reason=line.reason, version=line.version)
            for line in written
        )
        moved: dict[tuple[bool, int], int] = {}
        for line in written:
            key = (line.account.kind != Account.Kind.WALLET, line.account.pk)
            moved[key] = moved.get(key, 0) + line.amount_micro
        for (_, pk), amount_micro in sorted(moved.items()):
            Account.objects.filter(pk=pk).update(balance_micro=F("balance_micro") + amount_micro)
    return posted, True


def kind_of(cause: str) -> Transaction.Kind:
    """The kind that a cause such as "generation:req_…" or "job:job_…" names; ValueError when it names none."""
    return Transaction.Kind(cause.partition(":")[0])


def _release(reservation: Reservation) -> None:
    Account.objects.filter(pk=reservation.account_id).update(held_micro=F("held_micro") - reservation.amount_micro)


def _shares(amount_micro: int, version: Version | None, *, asks: shares.Asks, tokens: Mapping[str, Any]) -> list[Line]:
    """The lines that give a charge to who earns it: all of it to the store where no version was used."""
    platform = Account.objects.get_or_create(kind=Account.Kind.PLATFORM)[0]
    if version is None:
        return [Line(platform, amount_micro, Entry.Reason.PLATFORM_SHARE)]
    lines = []
    for share in shares.divide(amount_micro, version, asks=asks, tokens=tokens):
        of_store = share.reason == Entry.Reason.PLATFORM_SHARE
        account = platform if of_store else earnings_of(share.version.listing.publisher)
        lines.append(Line(account, share.amount_micro, share.reason, share.version))
    return lines
