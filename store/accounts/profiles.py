"""What a person says about themselves."""

from __future__ import annotations

from django.utils.translation import gettext_lazy as _

from store.accounts.models import User
from store.errors import DomainError


class InvalidProfile(DomainError):
    code = "invalid_profile"


def edit_profile(user: User, *, name: str, language: str) -> None:
    name = name.strip()
    if len(name) > 80 or not name.isprintable():
        raise InvalidProfile(_("Use at most 80 characters, and no line breaks."), param="name")
    if language not in dict(User._meta.get_field("language").choices or []):
        raise InvalidProfile(_("Choose one of the languages."), param="language")
    User.objects.filter(pk=user.pk).update(first_name=name, language=language)
