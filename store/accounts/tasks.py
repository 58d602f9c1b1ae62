"""Letters to people who may have no account yet."""

from __future__ import annotations

from typing import Any

from celery import shared_task
from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import translation

from store.accounts import domains
from store.accounts.models import Invitation, User


@shared_task(name="store.accounts.send_invitation")
def send_invitation(public_id: str, token: str) -> None:
    """Send the letter of an invitation that still waits. Of what the broker or the mail server loses, the owner sends another."""
    invitation = (
        Invitation.objects.select_related("publisher", "invited_by").filter(public_id=public_id, state=Invitation.State.PENDING).first()
    )
    if invitation is not None:
        compose(invitation, token).send()


@shared_task(name="store.accounts.erase_due")
def erase_due() -> int:
    from store.accounts import erasure  # which sends the letters below

    return erasure.erase_due()


@shared_task(name="store.accounts.send_erasure_asked")
def send_erasure_asked(public_id: str) -> None:
    user = User.objects.filter(public_id=public_id, erasure_due_at__isnull=False, erased_at__isnull=True).first()
    if user is not None:
        with translation.override(user.language):
            link = f"{settings.SITE_URL}{reverse('accounts:privacy')}"
        letter("erasure_asked", user.email, user.language, {"due": user.erasure_due_at, "link": link, "name": user.username}).send()


@shared_task(name="store.accounts.send_erased")
def send_erased(address: str, language: str) -> None:
    letter("erased", address, language, {}).send()


def letter(name: str, address: str, language: str, context: dict[str, Any]) -> EmailMultiAlternatives:
    """Of the templates accounts/email/NAME_subject.txt, NAME.txt and NAME.html."""
    with translation.override(language):
        context = {**context, "language": language}
        subject = render_to_string(f"accounts/email/{name}_subject.txt", context).strip()
        message = EmailMultiAlternatives(subject, render_to_string(f"accounts/email/{name}.txt", context), to=[address])
        message.attach_alternative(render_to_string(f"accounts/email/{name}.html", context), "text/html")
    return message


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


@shared_task(name="store.accounts.look_again")
def look_again() -> None:
    """Whether the proofs of domains are still there, of some publishers at a time."""
    domains.look_again()
