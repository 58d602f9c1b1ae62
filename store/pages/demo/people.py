"""The people of the demo, one for each role. Their passwords are an installation's own; `manage.py demo_logins` prints them."""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from allauth.account.models import EmailAddress
from django.conf import settings
from django.contrib.auth.models import Group
from django.db import transaction

from store.accounts.models import User
from store.billing import ledger
from store.errors import Conflict
from store.moderation.reviewers import GROUP

CREDIT_MICRO = 5_000_000
CREDIT_CAUSE = "grant:demo-credit"


@dataclass(frozen=True)
class Login:
    role: str
    username: str
    password: str


def _login(role: str) -> Login:
    """A password that only this installation's secret key gives, so that a demo left open to the world stays locked."""
    password = hmac.new(settings.SECRET_KEY.encode(), f"demo:{role}".encode(), "sha256").hexdigest()[:12]
    return Login(role, role, password)


LOGINS = tuple(_login(role) for role in ("admin", "reviewer", "publisher", "user"))


def seed() -> dict[str, User]:
    """The demo's people by role, made where they are missing. Raises Conflict when somebody else has the name `admin`.

    Whoever is there already is left as they are, with the password and the rights they have now.
    """
    people = {user.username: user for user in User.objects.filter(username__in=[login.username for login in LOGINS])}
    for login in LOGINS:
        if login.username not in people:
            people[login.username] = _create(login)
    if not people["admin"].is_superuser:
        raise Conflict("The name admin belongs to an account that is no superuser, so there is nobody to publish the demo: set DEMO=0.")
    return {login.role: people[login.username] for login in LOGINS}


def are_there() -> bool:
    """Whether any of them has been made, or somebody else has one of their names."""
    return User.objects.filter(username__in=[login.username for login in LOGINS]).exists()


def valid_logins() -> list[Login]:
    """Those by which one can sign in now: of people who are there and whose password nobody has changed."""
    people = {user.username: user for user in User.objects.filter(username__in=[login.username for login in LOGINS], is_active=True)}
    return [login for login in LOGINS if login.username in people and people[login.username].check_password(login.password)]


def _create(login: Login) -> User:
    is_admin = login.role == "admin"
    with transaction.atomic():
        user = User.objects.create_user(
            login.username, f"{login.username}@example.org", login.password, is_staff=is_admin, is_superuser=is_admin
        )
        EmailAddress.objects.create(user=user, email=user.email, primary=True, verified=True)
        if login.role == "reviewer":
            user.groups.add(Group.objects.get(name=GROUP))
        if login.role == "user":
            ledger.grant(None, user, CREDIT_MICRO, cause=CREDIT_CAUSE, memo="Credit to try the demo with")
    return user
