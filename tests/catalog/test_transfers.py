"""A GPT given to another publisher: who may, what goes along, and what still finds it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.test import Client
from django.urls import reverse
from django.utils import timezone, translation

from store.accounts import erasure
from store.accounts.models import Publisher, User
from store.billing import ledger
from store.catalog import naming, publishing, transfers
from store.catalog.errors import InvalidListing, NameTaken, TransferOver
from store.catalog.models import FormerAddress, Listing, Transfer, Version
from store.errors import Conflict, NotAllowed, NotFound
from store.notifications.models import Notification
from store.notifications.sentences import sentence
from tests import making

pytestmark = pytest.mark.django_db


@pytest.fixture
def version() -> Version:
    base = making.make_base()
    fields = {"input_price_micro": 1_000_000, "output_price_micro": 1_000_000}
    return making.make_prompt(base, making.make_listing(making.make_publisher(slug="old-house"), "poet", **fields))


@pytest.fixture
def giver(version: Version) -> User:
    return making.owner_of(version.listing.publisher)


@pytest.fixture
def taker() -> User:
    user = making.make_user()
    making.confirm_address(user)
    making.make_publisher(user, slug="new-house")
    return user


def given(giver: User, taker: User, listing: Listing) -> Listing:
    return transfers.accept(taker, transfers.offer(giver, listing, to="new-house"))


def used(version: Version, cause: str) -> None:
    payer = making.make_user()
    ledger.grant(None, payer, 1000, cause=f"grant:{cause}")
    ledger.reserve(payer, cause=f"generation:{cause}", amount_micro=1000, expires_at=timezone.now() + timedelta(minutes=5))
    ledger.settle(f"generation:{cause}", amount_micro=1000, version=Version.objects.get(pk=version.pk))


def test_it_is_the_others_once_an_owner_there_accepts_and_earns_for_them_from_then_on(giver: User, taker: User, version: Version) -> None:
    used(version, "before")
    before = ledger.earnings_of(version.listing.publisher).balance_micro
    offered = transfers.offer(giver, version.listing, to=" New-House ")
    assert Notification.objects.get(user=taker).kind == "transfer_offered"

    listing = transfers.accept(taker, offered)
    used(version, "after")

    assert listing.full_name == "new-house/poet"
    assert ledger.earnings_of(offered.giver).balance_micro == before > 0
    assert ledger.earnings_of(offered.taker).balance_micro == before


def test_who_offered_it_reads_of_the_answer_in_their_own_language(giver: User, taker: User, version: Version) -> None:
    offered = transfers.offer(giver, version.listing, to="new-house")

    with translation.override("zh-hans"):
        transfers.decline(taker, offered)

    told = Notification.objects.get(user=giver)
    assert sentence(told).endswith("was answered: declined.")
    with translation.override("zh-hans"):
        assert "已拒绝" in sentence(told)


def test_its_old_address_finds_it_for_programs_and_people(client: Client, giver: User, taker: User, version: Version) -> None:
    given(giver, taker, version.listing)

    assert naming.resolve("old-house/poet", None) == naming.resolve("old-house/poet@1.0.0", None) == version
    sent_on = client.get("/zh-hans/gpts/old-house/poet/versions/?x=1")
    assert (sent_on.status_code, sent_on.url) == (302, "/zh-hans/gpts/new-house/poet/versions/?x=1")
    assert client.get("/api/listings/old-house/poet").json()["name"] == "new-house/poet"
    with pytest.raises(NameTaken):
        making.make_listing(version.listing.publisher, "poet")
    Listing.objects.filter(pk=version.listing_id).update(visibility="draft")
    assert client.get("/en/gpts/old-house/poet/").status_code == 404  # an address tells nobody of what they may not see
    with pytest.raises(naming.UnknownModel) as refused:
        naming.resolve("old-house/poet", None)
    assert "new-house" not in str(refused.value)


def test_it_can_come_home(client: Client, giver: User, taker: User, version: Version) -> None:
    making.confirm_address(giver)
    listing = given(giver, taker, version.listing)

    transfers.accept(giver, transfers.offer(taker, listing, to="old-house"))

    assert naming.resolve("new-house/poet", None) == naming.resolve("old-house/poet", None)
    assert [str(one) for one in FormerAddress.objects.all()] == ["new-house/poet"]
    sent_on = client.get("/en/gpts/new-house/poet/")
    assert (sent_on.status_code, sent_on.url) == (302, "/en/gpts/old-house/poet/")  # a browser would keep a 301, and turn in circles
    assert client.get(sent_on.url).status_code == 200


def test_its_old_address_outlives_the_account_of_who_gave_it_away_and_their_name_does_not(
    client: Client, giver: User, taker: User, version: Version
) -> None:
    given(giver, taker, version.listing)
    emptied = making.make_publisher(giver, slug="wanda-writes")

    assert erasure.erase(giver)

    assert naming.resolve("old-house/poet@1.0.0", None) == version
    assert client.get("/en/gpts/old-house/poet/").url == "/en/gpts/new-house/poet/"
    emptied.refresh_from_db()
    old = Publisher.objects.get(slug="old-house")
    assert "wanda" not in emptied.slug
    for publisher in (emptied, old):
        assert (publisher.name, publisher.skeleton, publisher.folded_skeleton) == (publisher.public_id.lower().replace("_", "-"), "", "")


def test_only_owners_offer_and_answer_and_those_with_a_confirmed_address(giver: User, taker: User, version: Version) -> None:
    listing = version.listing
    maintainer = making.join(listing.publisher, "maintainer")
    with pytest.raises(NotAllowed):
        transfers.offer(maintainer, listing, to="new-house")
    offered = transfers.offer(giver, listing, to="new-house")
    unconfirmed = making.join(offered.taker, "owner")
    for user in (unconfirmed, making.join(offered.taker, "maintainer")):
        with pytest.raises(NotAllowed):
            transfers.accept(user, offered)
    for act in (transfers.accept, transfers.decline):
        with pytest.raises(NotFound):
            act(giver, offered)

    assert Listing.objects.get(pk=listing.pk).publisher == listing.publisher


@pytest.mark.parametrize("end", [transfers.revoke, transfers.decline, "run out", "offered again"])
def test_what_is_over_cannot_be_accepted(giver: User, taker: User, version: Version, end: Any) -> None:
    offered = transfers.offer(giver, version.listing, to="new-house")
    later = timedelta(days=8) if end == "run out" else timedelta()
    if end == "offered again":
        transfers.offer(giver, version.listing, to="new-house")
    elif callable(end):
        end(giver if end is transfers.revoke else taker, offered)

    with time_machine.travel(timezone.now() + later), pytest.raises(TransferOver):
        transfers.accept(taker, Transfer.objects.select_related("taker", "giver").get(pk=offered.pk))


def test_no_name_is_taken_and_nothing_in_review_moves(giver: User, taker: User, version: Version) -> None:
    for unknown in ("old-house", "nobody", ""):
        with pytest.raises(InvalidListing):
            transfers.offer(giver, version.listing, to=unknown)
    offered = transfers.offer(giver, version.listing, to="new-house")
    making.make_listing(offered.taker, "poet")
    with pytest.raises(NameTaken):
        transfers.accept(taker, offered)
    assert Transfer.objects.get().state == "open"  # refused whole
    publishing.seal(making.draft_prompt(making.make_base(), version.listing, number="2.0.0"))
    with pytest.raises(Conflict):
        transfers.offer(giver, version.listing, to=offered.taker.slug)


def test_the_pages_lead_from_the_offer_to_the_new_owner(client: Client, giver: User, taker: User, version: Version) -> None:
    listing = version.listing
    client.force_login(giver)
    offer = reverse("pages:studio_transfer", args=[listing.publisher.slug, listing.slug])
    assert client.post(offer, {"to": "nobody"}).status_code == 422
    client.post(offer, {"to": "new-house"})
    assert "It is offered to New-House" in client.get(offer).content.decode()
    answer = reverse("pages:studio_transfer_answer", args=[Transfer.objects.get().public_id])
    assert "An owner of the other publisher has to answer." in client.get(answer).content.decode()
    stranger = Client()
    stranger.force_login(making.make_user())
    assert stranger.post(answer, {"answer": "accept"}).status_code == 404

    client.force_login(taker)
    assert "Take it over" in client.get(answer).content.decode()
    assert client.post(answer, {"answer": "accept"}).url == reverse("pages:studio_listing", args=["new-house", "poet"])
    assert Listing.objects.get(pk=listing.pk).publisher.slug == "new-house"
