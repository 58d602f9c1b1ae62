"""What the conversations and the arena hold of a person."""

from __future__ import annotations

from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from store.accounts.models import User
from store.accounts.personal_data import Holding
from store.playground.models import Battle

_NAMES = frozenset({"version_a", "version_b", "request_a", "request_b", "fingerprint"})  # not to be learnt before the vote
_VOTED = _("Your votes in the arena, on which its ratings rest, without what was asked and answered.")
HOLDINGS = (
    Holding("playground.PreferencePair"),
    Holding("playground.FeedbackConsent"),
    Holding("playground.PreferenceSet", "created_by", kept=_("Which data sets you made for a publisher."), hidden=frozenset({"digests"})),
    Holding("playground.Share"),
    Holding("playground.Message", "conversation__user"),
    Holding("playground.Conversation"),
    Holding("playground.Battle", where=Q(vote=""), part="open", hidden=_NAMES),
    Holding("playground.Battle", where=~Q(vote=""), part="voted", kept=_VOTED, hidden=frozenset({"fingerprint"})),
)


def forget(user: User) -> None:
    Battle.objects.filter(user=user).exclude(vote="").update(text="", fingerprint="", answer_a="", answer_b="")
