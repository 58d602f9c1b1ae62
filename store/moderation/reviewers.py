"""Who reviews: members of the group "reviewers", and never what is their own."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.contrib.auth.management import create_permissions
from django.contrib.auth.models import Group, Permission
from django.utils.translation import gettext as _

from store.accounts.models import Publisher, User
from store.errors import NotAllowed, NotFound

GROUP = "reviewers"


def create_group(sender: AppConfig, **_kwargs: Any) -> None:
    """The group with its permission, safe to run again. Receives `post_migrate`, maybe before the permissions were made."""
    create_permissions(sender, verbosity=0)
    group, created = Group.objects.get_or_create(name=GROUP)
    if created:
        group.permissions.set(Permission.objects.filter(content_type__app_label="moderation", codename="review"))


def require_reviewer(user: Any) -> None:
    """Raises NotFound for everybody else: review pages do not exist for them."""
    if not isinstance(user, User) or not user.is_reviewer:
        raise NotFound


def refuse_own(user: User, publisher: Publisher) -> None:
    """Nobody decides about a publisher they belong to. Raises NotAllowed."""
    if publisher.role_of(user) is not None:
        raise NotAllowed(_("You belong to this publisher, so another reviewer has to decide."))
