"""Monthly access: what it costs and covers, who earns by it, how it ends, and how it is given back."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.db.models import Sum
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from store.accounts.models import User
from store.billing import access, ledger
from store.billing.errors import AccessNotOffered, InsufficientCredit, NoRefund
from store.billing.models import Access, Account, Entry, Transaction
from store.catalog import listings
from store.catalog.errors import InvalidListing
from store.catalog.models import Listing, Version
from store.errors import Conflict, NotFound
from store.generation.models import Request
from store.notifications.models import Notification
from tests import making
from tests.billing.test_ledger import in_threads

pytestmark = pytest.mark.django_db
PRICE, TOKENS = 5_000_000, 1_000_000
ASKS: dict[str, Any] = {"input_price_micro": 100_000, "output_price_micro": 200_000}


@pytest.fixture
def base() -> Version:
    return making.make_base(making.make_publisher(slug="lab"), "base", input_price_micro=10_000, output_price_micro=10_000)


@pytest.fixture
def version(base: Version) -> Version:
    fields = ASKS | {"monthly_price_micro": PRICE, "monthly_tokens": TOKENS}
    return making.make_prompt(base, making.make_listing(making.make_publisher(slug="works"), "leaf", **fields))


@pytest.fixture
def rich() -> User:
    user = making.make_user()
    ledger.grant(None, user, 3 * PRICE, cause=f"grant:{user.pk}")
    return user


def balance(user: User) -> int:
    return ledger.wallet_of(user).balance_micro


def earned(version: Version) -> int:
    return ledger.earnings_of(version.listing.publisher).balance_micro


def later(days: float) -> datetime:
    return timezone.now() + timedelta(days=days)


def test_it_is_paid_once_and_shared_as_a_use_of_the_gpt_is(rich: User, version: Version, base: Version) -> None:
    bought = access.buy(rich, version.listing, price_micro=PRICE, tokens=TOKENS)

    assert (balance(rich), bought.ends_at - bought.starts_at, bought.renews) == (2 * PRICE, timedelta(days=30), False)
    store = PRICE * 20 // 100
    assert (earned(base), earned(version)) == ((PRICE - store) // 10, PRICE - store - (PRICE - store) // 10)
    assert Transaction.objects.get(kind="access").entries.aggregate(total=Sum("amount_micro"))["total"] == 0
    assert access.buy(rich, version.listing, price_micro=PRICE, tokens=TOKENS) == bought  # pressed twice
    assert balance(rich) == 2 * PRICE


def test_it_covers_what_the_gpt_asks_and_not_what_it_builds_on(rich: User, version: Version, base: Version) -> None:
    assert access.due(version, rich)[0].price.input_micro == 110_000
    bought = access.buy(rich, version.listing, price_micro=PRICE, tokens=TOKENS)

    due, covering = access.due(version, rich)

    assert (due.price.input_micro, list(due.parts), covering) == (10_000, [base.public_id], bought)
    wrapper = making.make_prompt(version.weights(), making.make_listing(input_price_micro=7))
    assert access.due(wrapper, rich)[1] is None
    access.count(bought.pk, TOKENS)
    assert access.due(version, rich) == (access.prices.due(version, rich), None)  # used up
    with time_machine.travel(later(31)):
        assert access.due(version, rich)[1] is None


@pytest.mark.parametrize("shown", [0, PRICE - 1])
def test_nobody_pays_another_price_than_they_were_shown(rich: User, version: Version, shown: int) -> None:
    with pytest.raises(Conflict):
        access.buy(rich, version.listing, price_micro=shown, tokens=TOKENS)

    assert balance(rich) == 3 * PRICE
    assert not Access.objects.exists()


def test_what_is_not_offered_is_not_sold(rich: User, version: Version) -> None:
    member = making.owner_of(version.listing.publisher)
    for buyer, change in ((member, {}), (rich, {"monthly_price_micro": 0}), (rich, {"suspended_at": timezone.now()})):
        Listing.objects.filter(pk=version.listing_id).update(monthly_price_micro=PRICE, suspended_at=None)
        Listing.objects.filter(pk=version.listing_id).update(**change)
        with pytest.raises(AccessNotOffered):
            access.buy(buyer, version.listing, price_micro=PRICE, tokens=TOKENS)

    assert not Transaction.objects.filter(kind="access").exists()


def test_who_cannot_pay_gets_nothing(version: Version) -> None:
    poor = making.make_user()

    with pytest.raises(InsufficientCredit):
        access.buy(poor, version.listing, price_micro=PRICE, tokens=TOKENS)

    assert not Access.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_bought_many_times_at_once_it_is_paid_once(rich: User, version: Version) -> None:
    found = in_threads(4, lambda _: access.buy(rich, version.listing, price_micro=PRICE, tokens=TOKENS))

    assert {one.pk for one in found} == {Access.objects.get().pk}
    assert balance(rich) == 2 * PRICE


def test_soon_and_hardly_used_it_is_given_back_whole_and_once(rich: User, version: Version, base: Version) -> None:
    bought = access.buy(rich, version.listing, price_micro=PRICE, tokens=TOKENS)
    access.count(bought.pk, TOKENS // 20)

    access.refund(rich, bought.public_id)

    assert (balance(rich), earned(version), earned(base)) == (3 * PRICE, 0, 0)
    assert access.of(rich, version.listing) is None
    with pytest.raises(NoRefund):
        access.refund(rich, bought.public_id)
    assert Account.objects.get(kind="platform").balance_micro == 0


def test_it_is_given_back_whole_once_for_each_gpt(rich: User, version: Version) -> None:
    access.refund(rich, access.buy(rich, version.listing, price_micro=PRICE, tokens=TOKENS).public_id)
    again = access.buy(rich, version.listing, price_micro=PRICE, tokens=TOKENS)

    with pytest.raises(NoRefund):
        access.refund(rich, again.public_id)

    assert balance(rich) == 2 * PRICE


def test_nothing_is_given_back_while_an_answer_is_under_way_that_it_pays_for(rich: User, version: Version) -> None:
    bought = access.buy(rich, version.listing, price_micro=PRICE, tokens=TOKENS)
    under_way = Request.objects.create(user=rich, version=version, source="chat", access=bought, deadline_at=timezone.now())

    with pytest.raises(NoRefund, match="under way"):
        access.refund(rich, bought.public_id)

    Request.objects.filter(pk=under_way.pk).update(state=Request.State.FINISHED)
    access.refund(rich, bought.public_id)
    with pytest.raises(Conflict):
        access.hold(bought)  # nor does another begin


def test_fewer_tokens_for_the_price_are_another_offer(rich: User, version: Version) -> None:
    bought = access.buy(rich, version.listing, price_micro=PRICE, tokens=TOKENS)
    access.set_renewal(rich, bought.public_id, renews=True)
    Listing.objects.filter(pk=version.listing_id).update(monthly_tokens=TOKENS // 10)

    with time_machine.travel(later(31)):
        access.end_due()
        assert access.of(rich, version.listing) is None
        with pytest.raises(Conflict):
            access.buy(rich, version.listing, price_micro=PRICE, tokens=TOKENS)

    assert balance(rich) == 2 * PRICE


@pytest.mark.parametrize(("used", "days"), [(TOKENS // 20 + 1, 0), (0, 2.1)])
def test_used_or_late_it_is_not_given_back(rich: User, version: Version, used: int, days: float) -> None:
    bought = access.buy(rich, version.listing, price_micro=PRICE, tokens=TOKENS)
    access.count(bought.pk, used)

    with time_machine.travel(later(days)), pytest.raises(NoRefund):
        access.refund(rich, bought.public_id)

    assert balance(rich) == 2 * PRICE


@pytest.mark.parametrize(("used", "back"), [(0, PRICE * 20 // 30), (TOKENS * 3 // 4, PRICE // 4)], ids=["the days", "the tokens"])
def test_of_a_gpt_that_was_taken_down_the_days_or_tokens_left_are_given_back(rich: User, version: Version, used: int, back: int) -> None:
    bought = access.buy(rich, version.listing, price_micro=PRICE, tokens=TOKENS)
    access.count(bought.pk, used)
    Listing.objects.filter(pk=version.listing_id).update(suspended_at=timezone.now())

    with time_machine.travel(later(9.5)):
        access.refund(rich, bought.public_id)

    assert 2 * PRICE + back - 3 <= balance(rich) <= 2 * PRICE + back
    assert Entry.objects.aggregate(total=Sum("amount_micro"))["total"] == 0


def test_it_ends_by_itself_and_renews_only_where_that_was_wanted_and_at_the_same_price(rich: User, version: Version) -> None:
    first = access.buy(rich, version.listing, price_micro=PRICE, tokens=TOKENS)
    with time_machine.travel(later(30.1)):
        assert access.end_due() == 1
        assert access.end_due() == 0
    assert balance(rich) == 2 * PRICE

    with time_machine.travel(later(31)):
        second = access.buy(rich, version.listing, price_micro=PRICE, tokens=TOKENS)
        access.set_renewal(rich, second.public_id, renews=True)
    with time_machine.travel(later(61.1)):
        access.end_due()
        third = access.of(rich, version.listing)
    assert third is not None
    assert (balance(rich), third.renews) == (0, True)

    Listing.objects.filter(pk=version.listing_id).update(monthly_price_micro=PRICE + 1)
    with time_machine.travel(later(92)):
        access.end_due()
        assert access.of(rich, version.listing) is None
    told = dict(Notification.objects.values_list("key", "kind"))
    kinds = {key.split(":")[1]: kind for key, kind in told.items() if key.startswith("access:")}
    assert [kinds[one.public_id] for one in (first, second, third)] == ["access_ended", "access_renewed", "access_ended"]


def test_the_price_of_a_month_stands_beside_one_per_token(version: Version) -> None:
    owner = making.owner_of(version.listing.publisher)
    free = {"input_price_micro": 0, "output_price_micro": 0}
    for wrong in ({**free, "monthly_price_micro": 5, "monthly_tokens": TOKENS}, {**ASKS, "monthly_price_micro": 5, "monthly_tokens": 1}):
        with pytest.raises(InvalidListing):
            listings.set_prices(owner, version.listing, **wrong)


def test_the_pages_sell_show_and_end_it_for_its_buyer_alone(client: Client, rich: User, version: Version) -> None:
    client.force_login(rich)
    page = reverse("billing:access", args=[version.listing.public_id])
    assert "Pay $5.00" in client.get(page).content.decode()
    assert "or $5.00 for 30 days" in client.get(f"/en/gpts/{version.listing.full_name}/").content.decode()
    assert client.post(page, {"price_micro": "²"}).status_code == 409
    client.post(page, {"price_micro": PRICE, "tokens": TOKENS})
    bought = Access.objects.get()
    assert "0 of 1,000,000" in client.get("/en/wallet/").content.decode()
    assert "You have access until" in client.get(page).content.decode()

    stranger = Client()
    stranger.force_login(making.make_user())
    for act in ("renewal", "refund"):
        assert stranger.post(reverse(f"billing:{act}", args=[bought.public_id])).status_code == 404
    client.post(reverse("billing:renewal", args=[bought.public_id]), {"renews": "1"})
    assert Access.objects.get().renews
    client.post(reverse("billing:refund", args=[bought.public_id]))
    assert balance(rich) == 3 * PRICE
    with pytest.raises(NotFound):
        access.set_renewal(rich, bought.public_id, renews=True)
