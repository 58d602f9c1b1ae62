"""Inviting people to a publisher and handing one over: by signed letters that end, can be revoked, and open for one address alone."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
import time_machine
from allauth.account.models import EmailAddress
from django.core import mail
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoCaptureOnCommitCallbacks

from store.accounts import invitations, publishers
from store.accounts.models import AuditEntry, Invitation, Publisher, User
from store.accounts.tasks import send_invitation
from store.errors import Conflict, NotAllowed, NotFound, TooMany
from tests import making

pytestmark = pytest.mark.django_db


@pytest.fixture
def acme() -> Publisher:
    return making.make_publisher(making.make_user("lin"), slug="acme")


def confirmed(name: str, **fields: Any) -> User:
    """Somebody who has confirmed their address."""
    user = making.make_user(name, **fields)
    making.confirm_address(user)
    return user


@pytest.fixture
def lin(acme: Publisher) -> User:
    return making.owner_of(acme)


def letter(invitation: Invitation) -> mail.EmailMessage:
    send_invitation(invitation.public_id, invitations.token_of(invitation))
    return mail.outbox[-1]


def test_who_has_the_address_joins_in_that_role_once(acme: Publisher, lin: User) -> None:
    mo = confirmed("mo")
    invitation = invitations.invite(lin, acme, email=" Mo@Example.org ", role="maintainer")
    assert (acme.role_of(mo), invitation.email) == (None, "mo@example.org")

    invitations.accept(mo, invitations.by_token(invitations.token_of(invitation)))

    assert acme.role_of(mo) == "maintainer"
    publishers.remove_member(lin, acme, user=mo)
    with pytest.raises(invitations.InvitationOver):
        invitations.accept(mo, invitation)
    assert acme.role_of(mo) is None
    assert AuditEntry.objects.filter(actor=mo, action="publisher.accept_invitation", target=acme.public_id).count() == 1


def test_a_letter_opens_for_its_address_alone(acme: Publisher, lin: User) -> None:
    eve = making.make_user("eve")
    invitation = invitations.invite(lin, acme, email="mo@example.org", role="owner")

    with pytest.raises(NotAllowed):
        invitations.accept(eve, invitation)
    with pytest.raises(NotAllowed):
        invitations.decline(eve, invitation)
    for token in (invitation.public_id, f"{invitation.public_id}:x", invitations.token_of(invitation)[:-1] + "_", ""):
        with pytest.raises(NotFound):
            invitations.by_token(token)

    invitation.refresh_from_db()
    assert (acme.role_of(eve), invitation.state) == (None, "pending")
    hers = EmailAddress.objects.create(user=eve, email="mo@example.org", verified=False)
    with pytest.raises(NotAllowed):  # whoever was passed the letter can write the address into an account
        invitations.accept(eve, invitation)
    EmailAddress.objects.filter(pk=hers.pk).update(verified=True)
    invitations.accept(eve, invitation)
    assert acme.role_of(eve) == "owner"


def test_what_was_revoked_declined_replaced_or_ran_out_lets_nobody_in(acme: Publisher, lin: User) -> None:
    mo = confirmed("mo")

    revoked = invitations.invite(lin, acme, email=mo.email, role="member")
    invitations.revoke(lin, acme, revoked)
    declined = invitations.invite(lin, acme, email=mo.email, role="member")
    invitations.decline(mo, declined)
    replaced = invitations.invite(lin, acme, email=mo.email, role="owner")
    late = invitations.invite(lin, acme, email=mo.email, role="member")

    for over in (revoked, declined, replaced):
        with pytest.raises(invitations.InvitationOver):
            invitations.accept(mo, over)
    with time_machine.travel(timezone.now() + invitations.VALID_FOR + timedelta(seconds=1)), pytest.raises(invitations.InvitationOver):
        invitations.accept(mo, late)
    assert acme.role_of(mo) is None


def test_an_owner_hands_over_and_stays_as_maintainer(acme: Publisher, lin: User) -> None:
    mo = making.join(acme, "member", "mo")
    making.confirm_address(mo)
    offer = invitations.offer_ownership(lin, acme, email=mo.email)
    assert (acme.role_of(lin), acme.role_of(mo)) == ("owner", "member")

    invitations.accept(mo, offer)

    assert (acme.role_of(lin), acme.role_of(mo)) == ("maintainer", "owner")


def test_what_an_owner_offered_who_owns_it_no_more_is_worth_nothing(acme: Publisher, lin: User) -> None:
    mo, kim = confirmed("mo"), making.join(acme, "owner", "kim")
    offer = invitations.offer_ownership(lin, acme, email=mo.email)
    publishers.remove_member(kim, acme, user=lin)

    with pytest.raises(Conflict):
        invitations.accept(mo, offer)

    assert (acme.role_of(mo), acme.role_of(kim)) == (None, "owner")


def test_who_became_more_meanwhile_loses_no_role_by_accepting(acme: Publisher, lin: User) -> None:
    mo = confirmed("mo")
    invitation = invitations.invite(lin, acme, email=mo.email, role="member")
    publishers.add_member(lin, acme, user=mo, role="maintainer")

    invitations.accept(mo, invitation)

    assert acme.role_of(mo) == "maintainer"


def test_only_owners_invite_and_only_whom_it_makes_sense_to(acme: Publisher, lin: User) -> None:
    kim, eve = making.join(acme, "maintainer", "kim"), making.make_user("eve")

    for by, refused in ((kim, NotAllowed), (eve, NotFound)):
        with pytest.raises(refused):
            invitations.invite(by, acme, email="x@example.org", role="member")
        with pytest.raises(refused):
            invitations.offer_ownership(by, acme, email="x@example.org")
    with pytest.raises(invitations.AlreadyMember):
        invitations.invite(lin, acme, email="KIM@example.org", role="owner")
    for email, role in (("no address", "member"), ("x@example.org\nBcc: y@example.org", "member"), ("x@example.org", "king")):
        with pytest.raises(publishers.InvalidPublisher):
            invitations.invite(lin, acme, email=email, role=role)
    with pytest.raises(publishers.InvalidPublisher):
        invitations.offer_ownership(lin, acme, email=lin.email)

    assert not Invitation.objects.exists()


def test_there_is_an_end_to_inviting(acme: Publisher, lin: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invitations, "INVITATIONS_PER_DAY", 2)
    for name in ("a", "b"):
        invitations.invite(lin, acme, email=f"{name}@example.org", role="member")

    with pytest.raises(TooMany):
        invitations.invite(lin, acme, email="c@example.org", role="member")

    assert Invitation.objects.count() == 2


def test_the_letter_is_written_in_the_readers_language_and_leads_to_the_invitation(
    acme: Publisher, lin: User, client: Client, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    mo = confirmed("mo", language="zh-hans")
    client.force_login(lin)
    with django_capture_on_commit_callbacks() as later:
        sent = client.post("/en/account/publishers/acme/invitations/", {"email": mo.email, "role": "ownership"})
    assert (sent["Location"], len(later)) == ("/en/account/publishers/acme/members/", 1)
    invitation = Invitation.objects.get()
    assert mo.email in client.get(sent["Location"]).text

    message = letter(invitation)
    assert (message.to, "所有权" in message.body, "<a href=" in message.alternatives[0][0]) == ([mo.email], True, True)  # type: ignore[attr-defined]
    address = urlsplit(re.findall(r"https?://\S+", message.body)[0]).path
    assert address.startswith("/zh-hans/account/invitations/inv_")

    assert "/account/login/" in Client().get(address)["Location"]
    client.force_login(mo)
    assert client.get(address).status_code == 200
    assert client.post(address, {"answer": "accept"})["Location"] == "/zh-hans/account/publishers/acme/members/"
    assert (acme.role_of(mo), acme.role_of(lin)) == ("owner", "maintainer")
    assert client.post(address, {"answer": "accept"}).status_code == 410
    assert client.get(address).status_code == 200


def test_who_confirmed_the_address_finds_the_invitation_without_a_letter(acme: Publisher, lin: User, client: Client) -> None:
    mo = making.make_user("mo")
    invitation = invitations.invite(lin, acme, email=mo.email, role="member")
    client.force_login(mo)
    assert "inv_" not in client.get("/en/account/publishers/").text

    making.confirm_address(mo)

    assert invitations.token_of(invitation) in client.get("/en/account/publishers/").text


def test_what_is_wrong_stands_on_the_page_and_a_letter_of_a_revoked_one_is_not_sent(acme: Publisher, lin: User, client: Client) -> None:
    client.force_login(lin)
    refused = client.post("/en/account/publishers/acme/invitations/", {"email": lin.email, "role": "member"})
    assert refused.status_code == 400
    assert 'id="id_invitation_email_error"' in refused.text

    invitation = invitations.invite(lin, acme, email="mo@example.org", role="member")
    token = invitations.token_of(invitation)
    gone = client.post(f"/en/account/publishers/acme/invitations/{invitation.public_id}/revoke/")
    assert gone["Location"] == "/en/account/publishers/acme/members/"
    send_invitation(invitation.public_id, token)
    assert mail.outbox == []
