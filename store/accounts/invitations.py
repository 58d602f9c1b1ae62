"""Asking somebody by e-mail to join a publisher, or to take it over; nothing changes until they accept.

The letter holds a signed address of a page. It opens for an account that has confirmed the e-mail address it was sent to: a letter
that was passed on lets nobody else in. It can be answered once, for a week, unless it is revoked.
"""

from __future__ import annotations

from datetime import timedelta

from allauth.account.models import EmailAddress
from django.core.exceptions import ValidationError
from django.core.signing import BadSignature, Signer
from django.core.validators import validate_email
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from store import ratelimit
from store.accounts import audit
from store.accounts.models import Invitation, Membership, Publisher, User
from store.accounts.publishers import MAINTAINER, OWNER, InvalidPublisher, check_may_own_another, require_role
from store.accounts.tasks import send_invitation
from store.errors import Conflict, NotAllowed, NotFound

VALID_FOR = timedelta(days=7)
INVITATIONS_PER_DAY = 30
State = Invitation.State
_signer = Signer(salt="store.accounts.invitations")


class AlreadyMember(Conflict):
    code = "already_member"
    message = _("This person is a member already. Change their role instead.")


class InvitationOver(Conflict):
    code = "invitation_over"
    status = 410
    message = _("This invitation was answered, revoked or has run out. Ask for a new one.")


def invite(by: User, publisher: Publisher, *, email: str, role: str) -> Invitation:
    """Asks whoever has this address to join in that role. An earlier invitation of the same address is revoked. For owners."""
    require_role(by, publisher, OWNER)
    if role not in Membership.Role.values:
        raise InvalidPublisher(_("Choose one of the roles."), param="role")
    email = _clean_email(email)
    if Membership.objects.filter(publisher=publisher, user__email__iexact=email).exists():
        raise AlreadyMember(param="email")
    return _send(by, publisher, email=email, role=role)


def offer_ownership(by: User, publisher: Publisher, *, email: str) -> Invitation:
    """Asks whoever has this address, a member or not, to own the publisher in the place of `by`, who stays as maintainer."""
    require_role(by, publisher, OWNER)
    email = _clean_email(email)
    if email == by.email.lower():
        raise InvalidPublisher(_("You own it already. Write the address of somebody else."), param="email")
    return _send(by, publisher, email=email, role=OWNER, hands_over=True)


def revoke(by: User, publisher: Publisher, invitation: Invitation) -> None:
    """Makes its letter worthless."""
    require_role(by, publisher, OWNER)
    with transaction.atomic():
        if not Invitation.objects.filter(pk=invitation.pk, publisher=publisher, state=State.PENDING).update(state=State.REVOKED):
            raise InvitationOver
        audit.record(by, "publisher.revoke_invitation", publisher.public_id, invitation=invitation.public_id)


def accept(user: User, invitation: Invitation) -> None:
    """Makes `user` what they were invited to be. Raises InvitationOver, NotAllowed, and Conflict when who invited owns it no more."""
    _require_addressee(user, invitation)
    with transaction.atomic():
        publisher = Publisher.objects.select_for_update().get(pk=invitation.publisher_id)
        _answer(invitation, State.ACCEPTED)
        if publisher.role_of(invitation.invited_by) != OWNER:
            raise Conflict(_("Who invited you is no owner of this publisher any more. Ask an owner for a new invitation."))
        _join(user, publisher, invitation.role)
        if invitation.hands_over and invitation.invited_by != user:
            Membership.objects.filter(publisher=publisher, user=invitation.invited_by).update(role=MAINTAINER)
        about = {"invitation": invitation.public_id, "role": invitation.role, "hands_over": invitation.hands_over}
        audit.record(user, "publisher.accept_invitation", publisher.public_id, **about)


def decline(user: User, invitation: Invitation) -> None:
    _require_addressee(user, invitation)
    with transaction.atomic():
        _answer(invitation, State.DECLINED)
        audit.record(user, "publisher.decline_invitation", invitation.publisher.public_id, invitation=invitation.public_id)


def token_of(invitation: Invitation) -> str:
    """What its address ends with: its public id and a signature."""
    return _signer.sign(invitation.public_id)


def by_token(token: str) -> Invitation:
    """The invitation of a letter, whatever became of it. Raises NotFound for what this store has not signed."""
    try:
        public_id = _signer.unsign(token)
    except BadSignature as error:
        raise NotFound from error
    found = Invitation.objects.select_related("publisher", "invited_by").filter(public_id=public_id).first()
    if found is None:
        raise NotFound
    return found


def pending() -> QuerySet[Invitation]:
    """What can still be answered."""
    return Invitation.objects.filter(state=State.PENDING, expires_at__gt=timezone.now()).select_related("publisher", "invited_by")


def waiting_for(user: User) -> QuerySet[Invitation]:
    """What waits at addresses that this person has confirmed, so that no letter is needed."""
    return pending().filter(email__in=_confirmed(user))


def is_addressee(user: User, invitation: Invitation) -> bool:
    return invitation.email in _confirmed(user)


def has_confirmed_address(user: User) -> bool:
    return bool(_confirmed(user))


def _confirmed(user: User) -> list[str]:
    """The person's confirmed addresses, in lower case."""
    return [email.lower() for email in EmailAddress.objects.filter(user=user, verified=True).values_list("email", flat=True)]


def _require_addressee(user: User, invitation: Invitation) -> None:
    if not is_addressee(user, invitation):
        raise NotAllowed(
            _("This invitation is for another e-mail address. Sign in with that one, or add it to your account and confirm it.")
        )


def _clean_email(email: str) -> str:
    email = email.strip().lower()
    try:
        validate_email(email)
    except ValidationError as error:
        raise InvalidPublisher(error.message, param="email") from error
    return email


def _send(by: User, publisher: Publisher, *, email: str, role: str, hands_over: bool = False) -> Invitation:
    ratelimit.require(f"invite:{by.pk}", limit=INVITATIONS_PER_DAY, per_s=86_400)
    with transaction.atomic():
        Publisher.objects.select_for_update().get(pk=publisher.pk)
        Invitation.objects.filter(publisher=publisher, email=email, state=State.PENDING).update(state=State.REVOKED)
        sent = {"email": email, "role": role, "hands_over": hands_over, "expires_at": timezone.now() + VALID_FOR}
        invitation = Invitation.objects.create(publisher=publisher, invited_by=by, **sent)
        audit.record(by, "publisher.invite", publisher.public_id, invitation=invitation.public_id, role=role, hands_over=hands_over)
        token = token_of(invitation)
        transaction.on_commit(lambda: send_invitation.delay(invitation.public_id, token), robust=True)
    return invitation


def _answer(invitation: Invitation, state: str) -> None:
    if not pending().filter(pk=invitation.pk).order_by().update(state=state, answered_at=timezone.now()):
        raise InvitationOver
    invitation.state = state


def _join(user: User, publisher: Publisher, role: str) -> None:
    """Nobody who became a member meanwhile loses a role by it."""
    has = publisher.role_of(user)
    if has == OWNER or (has is not None and role != OWNER):
        return
    if role == OWNER:
        check_may_own_another(user)
    Membership.objects.update_or_create(publisher=publisher, user=user, defaults={"role": role})
