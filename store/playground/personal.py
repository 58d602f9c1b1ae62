"""What the conversations hold of a person."""

from __future__ import annotations

from store.accounts.personal_data import Holding

HOLDINGS = (Holding("playground.Message", "conversation__user"), Holding("playground.Conversation"))
