"""The wallet, its receipts and the earnings pages: who sees what."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone

from store.accounts.models import AuditEntry, Membership, User
from store.billing import ledger
from store.billing.models import Account, Transaction
from store.catalog.models import Version
from tests import making

pytestmark = pytest.mark.django_db


def signed_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def charge(user: User, version: Version, number: int, amount_micro: int = 1_000) -> Transaction:
    cause = f"generation:{number}"
    ledger.reserve(user, cause=cause, amount_micro=amount_micro, expires_at=timezone.now() + timedelta(minutes=5))
    detail = {"prompt_tokens": 12, "completion_tokens": 30, "input_price_micro": 100_000, "output_price_micro": 200_000}
    posted = ledger.settle(cause, amount_micro=amount_micro, version=version, memo=version.full_name, detail=detail)
    assert posted is not None
    return posted


@pytest.fixture
def version() -> Version:
    base = making.make_base(making.make_publisher(slug="lab"), "base")
    return making.make_prompt(base, making.make_listing(making.make_publisher(slug="works"), "leaf"))


@pytest.fixture
def ann() -> User:
    user = making.make_user("ann")
    ledger.grant(None, user, 1_000_000, cause="grant:1", memo="Welcome")
    return user


def test_the_wallet_lists_what_each_request_cost(ann: User, version: Version) -> None:
    for number in range(30):
        charge(ann, version, number)
    ledger.reserve(ann, cause="generation:now", amount_micro=70_000, expires_at=timezone.now() + timedelta(minutes=5))
    client = signed_in(ann)

    page = client.get("/en/wallet/")
    older = client.get("/en/wallet/", {"before": page.context["statement"].before})

    assert "$0.90" in page.text  # 1 − 30 × 0.001 − 0.07
    assert "−$0.001" in page.text
    assert "works/leaf@1.0.0" in page.text
    assert "generation:now" in page.text
    assert [movement.tokens for movement in page.context["statement"].movements] == [42] * 25
    assert [movement.amount_micro for movement in older.context["statement"].movements] == [-1_000] * 5 + [1_000_000]
    assert older.context["statement"].before == ""


def test_an_empty_wallet_says_how_credit_comes() -> None:
    page = signed_in(making.make_user()).get("/en/wallet/")

    assert page.status_code == 200
    assert "Nothing yet" in page.text
    assert not Account.objects.exists()


def test_a_receipt_is_its_payers_alone(ann: User, version: Version) -> None:
    posted = charge(ann, version, 1, 1_500)
    path = f"/en/wallet/receipts/{posted.public_id}/"

    assert "−$0.0015" in signed_in(ann).get(path).text
    assert signed_in(making.owner_of(version.listing.publisher)).get(path).status_code == 404
    assert Client().get(path).status_code == 302


def test_earnings_show_the_shares_of_the_lineage(ann: User, version: Version) -> None:
    charge(ann, version, 1)
    charge(ann, version, 2)
    works, lab = version.listing.publisher, version.weights().listing.publisher

    page = signed_in(making.owner_of(works)).get("/en/wallet/earnings/works/")
    above = signed_in(making.join(lab, Membership.Role.MAINTAINER)).get("/en/wallet/earnings/lab/")

    assert page.context["listings"] == [
        {"publisher": "works", "slug": "leaf", "direct_micro": 1_440, "ancestor_micro": 0, "total_micro": 1_440, "uses": 2}
    ]
    assert above.context["listings"] == [
        {"publisher": "lab", "slug": "base", "direct_micro": 0, "ancestor_micro": 160, "total_micro": 160, "uses": 2}
    ]
    assert "A GPT built on yours was used" in above.text
    assert ann.username not in page.text


def test_only_owners_and_maintainers_see_earnings(version: Version) -> None:
    path = "/en/wallet/earnings/works/"
    member = making.join(version.listing.publisher, Membership.Role.MEMBER)

    assert Client().get(path).status_code == 302
    assert signed_in(making.make_user()).get(path).status_code == 404
    assert signed_in(member).get(path).status_code == 403
    assert signed_in(making.make_user()).get("/en/wallet/earnings/nobody/").status_code == 404


def test_the_command_grants_credit_and_says_what_is_wrong() -> None:
    user = making.make_user("bo")

    call_command("grant_credit", "bo", "2.50", "--cause", "seed")
    call_command("grant_credit", "bo", "2.50", "--cause", "seed")

    assert ledger.wallet_of(user).balance_micro == 2_500_000
    for arguments in (["nobody", "1"], ["bo", "much"], ["bo", "-1"], ["bo", "NaN"]):
        with pytest.raises(CommandError):
            call_command("grant_credit", *arguments)
    assert ledger.wallet_of(user).balance_micro == 2_500_000


def test_the_admin_grants_credit_once_and_changes_nothing_else(ann: User) -> None:
    admin = User.objects.create_superuser("root", "root@example.org", "correct horse 9")
    client = signed_in(admin)
    form = {"user": "ann", "amount": "0.25", "memo": "Sorry", "cause": "form-1"}

    for _ in range(2):
        assert client.post("/admin/billing/account/grant/", form).status_code == 302

    assert ledger.wallet_of(ann).balance_micro == 1_250_000
    assert AuditEntry.objects.filter(action="billing.grant", actor=admin).count() == 1
    assert "Grant credit" in client.get("/admin/billing/account/").text
    for name in ("account", "transaction", "entry", "reservation"):
        assert client.get(f"/admin/billing/{name}/").status_code == 200
        assert client.get(f"/admin/billing/{name}/add/").status_code == 403
    grant = Transaction.objects.earliest("pk")
    assert client.get(f"/admin/billing/transaction/{grant.pk}/change/").status_code == 200
    assert client.post(f"/admin/billing/transaction/{grant.pk}/change/", {"memo": "x"}).status_code == 403
    assert client.post(f"/admin/billing/transaction/{grant.pk}/delete/", {"post": "yes"}).status_code == 403
    grant.refresh_from_db()
    assert grant.memo == "Welcome"


def test_staff_without_the_right_cannot_grant(ann: User) -> None:
    staff = making.make_user(is_staff=True)

    answer = signed_in(staff).post("/admin/billing/account/grant/", {"user": "ann", "amount": "1", "cause": "x"})

    assert answer.status_code == 403
    assert ledger.wallet_of(ann).balance_micro == 1_000_000
