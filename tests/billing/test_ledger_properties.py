"""Whatever happens in whatever order: entries sum to zero, balances are sums, and nobody is charged twice."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.models import Sum
from django.utils import timezone
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from store.accounts.models import User
from store.billing import ledger
from store.billing.errors import InsufficientCredit
from store.billing.models import Account, Entry, Reservation, Transaction
from store.billing.prices import Price
from store.catalog.models import Version
from store.errors import Conflict
from tests.billing.test_ledger import make_version

AMOUNTS = st.integers(0, 3_000)
CAUSES = st.integers(0, 5).map("generation:{}".format)
SEARCH = settings(
    max_examples=8 if connection.vendor == "postgresql" else 25,  # make test looks on both, and the rules are the same
    stateful_step_count=30,
    deadline=None,
    database=None,
    phases=[Phase.generate],  # shrinking an example would take minutes
    suppress_health_check=list(HealthCheck),
)
PRICES = st.builds(Price, st.integers(0, 3), st.integers(0, 3))
NAMES = st.sampled_from(["ann", "bo"])


class Ledger(RuleBasedStateMachine):
    """The acts with few causes and little credit, so that repetitions and refusals are common, beside a model in plain Python."""

    @initialize()
    def people_and_versions(self) -> None:
        with_users = {name: User.objects.create_user(name, f"{name}@example.com") for name in ("ann", "bo")}
        self.users: dict[str, User] = with_users
        weights = make_version("lab", "base")
        prompt = make_version("works", "middle", base=weights)
        self.versions: list[Version | None] = [None, weights, prompt, make_version("lab", "leaf", base=prompt)]
        self.credit = {"ann": 0, "bo": 0}
        self.granted: set[str] = set()
        self.held: dict[str, tuple[str, int]] = {}
        self.ended: dict[str, tuple[str, int]] = {}  # who was charged what

    def available(self, name: str) -> int:
        held = sum(amount for owner, amount in self.held.values() if owner == name)
        return self.credit[name] - held

    @rule(name=NAMES, amount=st.integers(1, 4_000), cause=st.integers(0, 3).map("grant:{}".format))
    def grant(self, name: str, amount: int, cause: str) -> None:
        known = cause in self.granted
        try:
            ledger.grant(None, self.users[name], amount, cause=cause)
        except Conflict:
            assert known
        if not known:
            self.granted.add(cause)
            self.credit[name] += amount

    @rule(name=NAMES, amount=AMOUNTS, cause=CAUSES, asks=st.lists(PRICES, min_size=4, max_size=4))
    def reserve(self, name: str, amount: int, cause: str, asks: list[Price]) -> None:
        known = cause in self.held or cause in self.ended
        parts = {version.public_id: ask for version, ask in zip(self.versions, asks, strict=True) if version and not ask.is_free}
        in_an_hour = timezone.now() + timedelta(hours=1)
        try:
            ledger.reserve(self.users[name], cause=cause, amount_micro=amount, expires_at=in_an_hour, parts=parts)
        except Conflict:
            assert known
        except InsufficientCredit:
            assert not known
            assert amount > self.available(name)
        else:
            if not known:
                assert amount <= self.available(name)
                self.held[cause] = (name, amount)

    @rule(cause=CAUSES, amount=AMOUNTS, version=st.integers(0, 3))
    def settle(self, cause: str, amount: int, version: int) -> None:
        tokens = {"prompt_tokens": amount % 7, "completion_tokens": amount % 5}
        posted = ledger.settle(cause, amount_micro=amount, version=self.versions[version], detail=tokens)
        if cause in self.held:
            name, reserved = self.held.pop(cause)
            self.ended[cause] = (name, min(amount, reserved))
            self.credit[name] -= min(amount, reserved)
        charged = self.ended.get(cause, ("", 0))[1]
        assert (posted is not None) == (charged > 0)

    @rule(cause=CAUSES)
    def void(self, cause: str) -> None:
        assert ledger.void(cause) == (cause in self.held)
        if cause in self.held:
            self.ended[cause] = (self.held.pop(cause)[0], 0)

    @rule(cause=CAUSES)
    def expire(self, cause: str) -> None:
        Reservation.objects.filter(cause=cause).update(expires_at=timezone.now() - timedelta(seconds=1))
        assert ledger.void_expired() == (cause in self.held)
        if cause in self.held:
            self.ended[cause] = (self.held.pop(cause)[0], 0)

    @invariant()
    def everything_adds_up(self) -> None:
        sums: dict[int, Any] = dict(Entry.objects.order_by().values_list("account").annotate(total=Sum("amount_micro")))
        assert sum(sums.values()) == 0
        assert not Transaction.objects.annotate(total=Sum("entries__amount_micro")).exclude(total=0).exists()
        for account in Account.objects.all():
            assert account.balance_micro == sums.get(account.pk, 0)
        for name, user in getattr(self, "users", {}).items():
            wallet = ledger.wallet_of(user)
            assert wallet.balance_micro == self.credit[name]
            assert wallet.available_micro == self.available(name) >= 0
        charged = {
            entry.transaction.cause: -entry.amount_micro for entry in Entry.objects.filter(reason="usage").select_related("transaction")
        }
        assert charged == {cause: amount for cause, (_, amount) in getattr(self, "ended", {}).items() if amount}


class AnyOrder(TestCase):
    """Each example in a transaction of its own that is rolled back."""

    def test_any_order_of_acts_adds_up(self) -> None:
        outer = self

        class Isolated(Ledger):
            def __init__(self) -> None:
                super().__init__()
                outer.setup_example()

            def teardown(self) -> None:
                outer.teardown_example(None)

        run_state_machine_as_test(Isolated, settings=SEARCH)


pytestmark = pytest.mark.django_db
