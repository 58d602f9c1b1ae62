"""What the messages hold of a person."""

from __future__ import annotations

from store.accounts.personal_data import Holding

HOLDINGS = (
    Holding("notifications.Notification", hidden=frozenset({"key"})),
    Holding("notifications.EmailOptOut"),
    Holding("notifications.WeeklyDigest"),
)
