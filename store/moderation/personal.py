"""What the moderation holds of a person."""

from __future__ import annotations

from django.utils.translation import gettext_lazy as _

from store.accounts.personal_data import Holding

_DECIDED = _("What was submitted and decided, so that a decision can still be read and disputed.")
HOLDINGS = (
    Holding("moderation.Submission", "submitted_by", kept=_DECIDED, hidden=frozenset({"claimed_by"})),
    Holding("moderation.Submission", "claimed_by", kept=_DECIDED, hidden=frozenset({"note", "submitted_by"})),
    Holding("moderation.Decision", "decided_by", kept=_DECIDED),
)
