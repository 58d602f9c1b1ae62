"""How allauth meets the store."""

from __future__ import annotations

from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.utils import translation

from store.accounts.models import User
from store.accounts.sign_in import signed_in
from store.accounts.visitors import forget_visitor, visitor_of


class AccountAdapter(DefaultAccountAdapter):
    def save_user(self, request: HttpRequest, user: User, form: Any, commit: bool = True) -> User:
        """The language a person signs up in is the one they are written to in."""
        user.language = _supported(translation.get_language())
        return super().save_user(request, user, form, commit=commit)

    def post_login(self, request: HttpRequest, user: User, **arguments: Any) -> HttpResponse:
        """What this browser did before it had an account becomes the person's."""
        visitor = visitor_of(request)
        signed_in(user, visitor)
        response = super().post_login(request, user, **arguments)
        if visitor:
            forget_visitor(response)
        return response

    def render_mail(self, template_prefix: str, email: str, context: dict[str, Any], headers: Any = None) -> EmailMultiAlternatives:
        """Every letter has both parts: allauth's are written as plain text, from which the other is made."""
        message: EmailMultiAlternatives = super().render_mail(template_prefix, email, context, headers)
        shown = {"subject": message.subject, "body": message.body, "site": settings.SITE_URL, "language": translation.get_language()}
        message.attach_alternative(render_to_string("email/plain.html", shown), "text/html")
        return message

    def send_mail(self, template_prefix: str, email: str, context: dict[str, Any]) -> None:
        """In the reader's language, which is not always that of the page that caused it."""
        language = User.objects.filter(email__iexact=email).values_list("language", flat=True).first()
        with translation.override(language or translation.get_language()):
            super().send_mail(template_prefix, email, context)


def _supported(language: str | None) -> str:
    codes = [code for code, _name in User._meta.get_field("language").choices or []]
    return language if language is not None and language in codes else str(codes[0])
