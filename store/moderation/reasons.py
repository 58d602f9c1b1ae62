"""Reasons that reviewers give often, written once in every language of the store."""

from __future__ import annotations

from collections.abc import Iterable

from django.db import models
from django.utils import translation
from django.utils.translation import gettext_lazy as _

from store.accounts.models import Membership, Publisher


class CannedReason(models.TextChoices):
    LICENCE = "licence", _("The licence does not match the licence of the base.")
    CLAIMS = "claims", _("It claims more than was measured.")
    TEXTS = "texts", _("The description is missing or unclear.")
    BROKEN = "broken", _("It does not do what it says.")
    UNSAFE = "unsafe", _("It gives unsafe answers.")


def compose(codes: Iterable[str], note: str, *, publisher: Publisher) -> str:
    """What the publisher reads: the chosen reasons in the language of its first owner, one a line, then the note."""
    owners = publisher.memberships.filter(role=Membership.Role.OWNER).order_by("pk")
    language = owners.values_list("user__language", flat=True).first() or "en"
    with translation.override(language):
        lines = [str(CannedReason(code).label) for code in codes]
    return "\n".join([*lines, *([note] if note else [])])
