"""Acts of the ledger, one by one and against each other."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any

import pytest
from django.db import connection
from django.db.models import Sum
from django.utils import timezone

from store.accounts.models import AuditEntry, Publisher, User
from store.billing import checks, ledger, prices
from store.billing.errors import InsufficientCredit, InvalidAmount
from store.billing.models import Account, Entry, Reservation, Transaction
from store.billing.prices import Price
from store.catalog.models import Ancestry, Listing, Version
from store.errors import Conflict, NotAllowed

pytestmark = pytest.mark.django_db
SOON = timedelta(minutes=5)


def in_threads(count: int, act: Callable[[int], Any]) -> list[Any]:
    """What `act` returned or raised in each of `count` threads that begin together."""
    start = Barrier(count)

    def run(index: int) -> Any:
        start.wait(timeout=10)
        try:
            return act(index)
        except Exception as error:
            return error
        finally:
            connection.close()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def held(user: User, cause: str, amount_micro: int) -> Reservation:
    return ledger.reserve(user, cause=cause, amount_micro=amount_micro, expires_at=timezone.now() + SOON)


def make_version(publisher: str, slug: str, *, base: Version | None = None) -> Version:
    """A weights version, or a prompt on `base` with its ancestry."""
    owner, _ = Publisher.objects.get_or_create(slug=publisher, defaults={"name": publisher})
    listing = Listing.objects.create(publisher=owner, slug=slug, licence="Apache-2.0")
    kind = Version.Kind.PROMPT if base else Version.Kind.WEIGHTS
    version = Version.objects.create(listing=listing, number="1.0.0", kind=kind, base=base)
    ancestor, depth = base, 1
    while ancestor is not None:
        Ancestry.objects.create(version=version, ancestor=ancestor, depth=depth)
        ancestor, depth = ancestor.base, depth + 1
    return version


@pytest.fixture
def ann() -> User:
    return User.objects.create_user("ann", "ann@example.com", "a long password")


@pytest.fixture
def rich(ann: User) -> User:
    ledger.grant(None, ann, 1_000_000, cause="grant:first")
    return ann


@pytest.fixture
def many_threads(transactional_db: None) -> None:
    """Threads see what the test committed."""
    return


def balances(user: User) -> tuple[int, int]:
    wallet = ledger.wallet_of(user)
    return wallet.balance_micro, wallet.held_micro


def test_only_an_operator_grants_credit(ann: User) -> None:
    with pytest.raises(NotAllowed):
        ledger.grant(ann, ann, 5, cause="grant:self")

    assert not Transaction.objects.exists()
    assert not AuditEntry.objects.exists()
    assert balances(ann) == (0, 0)


@pytest.mark.parametrize("amount_micro", [0, -1, ledger.MAX_GRANT_MICRO + 1])
def test_a_grant_has_a_sensible_amount(ann: User, amount_micro: int) -> None:
    with pytest.raises(InvalidAmount):
        ledger.grant(None, ann, amount_micro, cause="grant:1")

    assert not Transaction.objects.exists()


def test_a_repeated_grant_is_one_grant_and_one_audit_entry(ann: User) -> None:
    operator = User.objects.create_superuser("op", "op@example.com", "a long password")

    first = ledger.grant(operator, ann, 700, cause="grant:1", memo="welcome")
    again = ledger.grant(operator, ann, 700, cause="grant:1", memo="welcome")

    assert first == again
    assert balances(ann) == (700, 0)
    assert Account.objects.get(kind="grants").balance_micro == -700
    entry = AuditEntry.objects.get()
    assert (entry.actor, entry.action, entry.target, entry.detail["amount_micro"]) == (operator, "billing.grant", ann.public_id, 700)
    with pytest.raises(Conflict):
        ledger.grant(operator, ann, 701, cause="grant:1")
    assert balances(ann) == (700, 0)


def test_a_reservation_above_the_credit_holds_nothing(rich: User) -> None:
    held(rich, "generation:a", 900_000)

    with pytest.raises(InsufficientCredit) as raised:
        held(rich, "generation:b", 100_001)

    assert raised.value.detail == {"needed_micro": 100_001, "available_micro": 100_000}
    assert balances(rich) == (1_000_000, 900_000)
    assert not Reservation.objects.filter(cause="generation:b").exists()


def test_the_same_reservation_again_is_the_same_reservation(rich: User) -> None:
    first = held(rich, "generation:a", 10)

    assert held(rich, "generation:a", 10) == first
    with pytest.raises(Conflict):
        held(rich, "generation:a", 11)
    assert balances(rich) == (1_000_000, 10)


def test_a_cause_names_its_kind(rich: User) -> None:
    with pytest.raises(ValueError, match="lunch"):
        held(rich, "lunch:a", 10)

    assert not Reservation.objects.exists()


def test_a_settlement_shares_the_charge_along_the_lineage(rich: User, settings: Any) -> None:
    settings.PLATFORM_SHARE_PERCENT, settings.ANCESTOR_SHARE_PERCENT = 20, 10
    weights = make_version("lab", "base")
    middle = make_version("works", "middle", base=weights)
    version = make_version("lab", "leaf", base=middle)
    held(rich, "generation:a", 10_000)

    posted = ledger.settle("generation:a", amount_micro=1_001, version=version, memo="lab/leaf", detail={"prompt_tokens": 3})

    assert posted is not None
    assert (posted.kind, posted.memo, posted.detail) == ("generation", "lab/leaf", {"prompt_tokens": 3})
    lines = posted.entries.order_by("id").values_list("account__kind", "account__publisher__slug", "amount_micro", "reason", "version")
    assert list(lines) == [
        ("wallet", None, -1_001, "usage", version.pk),
        ("platform", None, 200, "platform share", version.pk),
        ("earnings", "works", 80, "ancestor share", middle.pk),
        ("earnings", "lab", 721, "listing share", version.pk),  # its own base below takes no share of it
    ]
    assert balances(rich) == (998_999, 0)
    assert Account.objects.get(publisher__slug="lab").balance_micro == 721
    assert Account.objects.get(publisher__slug="works").balance_micro == 80


def test_a_settlement_never_exceeds_its_reservation_and_happens_once(rich: User) -> None:
    held(rich, "generation:a", 500)

    first = ledger.settle("generation:a", amount_micro=9_999, version=None)
    again = ledger.settle("generation:a", amount_micro=3, version=None)

    assert first is not None
    assert first == again
    assert not ledger.void("generation:a")
    assert balances(rich) == (999_500, 0)
    assert Reservation.objects.get().settled_micro == 500


def test_what_was_voided_or_never_reserved_is_never_charged(rich: User) -> None:
    held(rich, "generation:a", 500)

    assert ledger.void("generation:a")
    assert not ledger.void("generation:a")
    assert ledger.settle("generation:a", amount_micro=500, version=None) is None
    assert ledger.settle("generation:unknown", amount_micro=500, version=None) is None
    assert balances(rich) == (1_000_000, 0)


def test_what_cost_nothing_leaves_no_transaction(rich: User) -> None:
    held(rich, "generation:a", 500)

    assert ledger.settle("generation:a", amount_micro=0, version=None) is None
    assert Reservation.objects.get().state == "settled"
    assert balances(rich) == (1_000_000, 0)
    assert Transaction.objects.count() == 1  # the grant


def test_expired_reservations_are_given_back(rich: User) -> None:
    ledger.reserve(rich, cause="job:old", amount_micro=300, expires_at=timezone.now() - SOON)
    held(rich, "job:new", 200)

    assert ledger.void_expired() == 1
    assert ledger.void_expired() == 0
    assert balances(rich) == (1_000_000, 200)


def test_a_transaction_that_does_not_sum_to_zero_is_refused(rich: User) -> None:
    line = ledger.Line(ledger.wallet_of(rich), 5, Entry.Reason.CREDIT)

    with pytest.raises(ValueError, match="do not sum to zero"):
        ledger.post(Transaction.Kind.REFUND, cause="refund:1", lines=[line])

    assert balances(rich) == (1_000_000, 0)


def test_a_cost_is_rounded_up_once() -> None:
    amounts = {"prompt_tokens": 3, "completion_tokens": 4}

    assert prices.cost(**amounts, input_price_micro=100_000, output_price_micro=200_000) == 2  # 1.1
    assert prices.cost(**amounts, input_price_micro=0, output_price_micro=0) == 0
    assert prices.cost(**amounts, input_price_micro=1_000_000, output_price_micro=0) == 3
    assert prices.most_it_can_cost(Price(0, 1), prompt_tokens=0, max_tokens=1) == 1


@pytest.mark.usefixtures("many_threads")
def test_two_processes_cannot_spend_the_same_credit(rich: User) -> None:
    outcomes = in_threads(6, lambda index: held(rich, f"generation:{index}", 400_000))

    assert sum(isinstance(outcome, Reservation) for outcome in outcomes) == 2
    assert sum(isinstance(outcome, InsufficientCredit) for outcome in outcomes) == 4
    assert balances(rich) == (1_000_000, 800_000)


@pytest.mark.usefixtures("many_threads")
def test_settle_and_void_at_once_take_effect_once(rich: User) -> None:
    version = make_version("lab", "base")
    for number in range(4):
        held(rich, f"generation:{number}", 1_000)

    def act(index: int) -> Any:
        cause = f"generation:{index % 4}"
        return ledger.void(cause) if index < 4 else ledger.settle(cause, amount_micro=600, version=version)

    outcomes = in_threads(12, act)

    assert not [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    settled = Reservation.objects.filter(state="settled").count()
    assert Transaction.objects.filter(kind="generation").count() == settled
    assert outcomes.count(True) == 4 - settled
    assert balances(rich) == (1_000_000 - 600 * settled, 0)
    assert Entry.objects.aggregate(total=Sum("amount_micro"))["total"] == 0


def test_shares_that_cannot_be_paid_stop_the_start(settings: Any) -> None:
    settings.PLATFORM_SHARE_PERCENT = 101

    assert [error.id for error in checks.shares_are_percentages()] == ["billing.E001"]
