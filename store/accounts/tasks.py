"""Letters to people who may have no account yet."""

from __future__ import annotations

from celery import shared_task
from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import translation

from store.accounts.models import Invitation, User


@shared_task(name="store.accounts.send_invitation")
def send_invitation(public_id: str, token: str) -> None:
    """Send the letter of an invitation that still waits. Of what the broker or the mail server loses, the owner sends another."""
    invitation = (
        Invitation.objects.select_related("publisher", "invited_by").filter(public_id=public_id, state=Invitation.State.PENDING).first()
    )
    if invitation is not None:
        compose(invitation, token).send()


def compose(invitation: Invitation, token: str) -> EmailMultiAlternatives:
    """In the language of the account that has this address, else of who invites."""
    reader = User.objects.filter(email__iexact=invitation.email).first()
    language = (reader or invitation.invited_by).language
    with translation.override(language):
        link = f"{settings.SITE_URL}{reverse('accounts:invitation', args=[token])}"
        context = {"invitation": invitation, "link": link, "language": language}
        message = EmailMultiAlternatives(
            subject=render_to_string("accounts/email/invitation_subject.txt", context).strip(),
            body=render_to_string("accounts/email/invitation.txt", context),
            to=[invitation.email],
        )
        message.attach_alternative(render_to_string("accounts/email/invitation.html", context), "text/html")
    return message
