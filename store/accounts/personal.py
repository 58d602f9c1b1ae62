"""What the accounts themselves, and the apps they stand on, hold of a person."""

from __future__ import annotations

from django.utils.translation import gettext_lazy as _

from store.accounts.personal_data import Holding

HOLDINGS = (
    Holding(
        "accounts.User",
        "pk",
        kept=_("An empty account, so that what others see still has an author: without name, address and password."),
        hidden=frozenset({"password"}),
    ),
    Holding("accounts.Membership"),
    Holding("accounts.Invitation", "invited_by"),
    Holding("accounts.ApiKey", hidden=frozenset({"digest"})),
    Holding("accounts.AuditEntry", "actor", kept=_("The log of privileged acts, which shows who did what should it be disputed.")),
    Holding("account.EmailAddress"),
    Holding("mfa.Authenticator", hidden=frozenset({"data"})),
    Holding("usersessions.UserSession", hidden=frozenset({"session_key"})),
    Holding("admin.LogEntry", kept=_("The log of privileged acts, which shows who did what should it be disputed.")),
)
