"""Why a conversation or a battle does not go on, or is not shared."""

from __future__ import annotations

from django.utils.translation import gettext_lazy as _

from store.errors import Conflict, DomainError, NotAllowed, NotFound


class StillAnswering(Conflict):
    code = "still_answering"
    message = _("The last answer is still being written. Wait for its end, or stop it.")


class Superseded(Conflict):
    code = "superseded"
    message = _("The conversation has gone on since. Reload the page.")


class BadTitle(DomainError):
    code = "invalid_title"
    message = _("A title needs 1 to 80 characters.")


class NotText(DomainError):
    code = "invalid_encoding"
    message = _("What arrived is not valid UTF-8 text. Send it again as UTF-8.")


class Withdrawn(NotFound):
    code = "model_not_found"
    message = _("This GPT is no longer available. Your conversation stays readable; go on with another one.")


class NoContenders(Conflict):
    code = "no_contenders"
    message = _("Too few GPTs could meet here now for you not to know which two they are. Try another use case, or come back later.")


class NotComplete(Conflict):
    code = "battle_not_complete"
    message = _("Only two whole answers can be compared. Wait for their end; if one failed or was stopped, begin another battle.")


class AlreadyVoted(Conflict):
    code = "already_voted"
    message = _("You have voted on this battle already.")


class OwnBattle(NotAllowed):
    code = "own_listing"
    message = _("One of the two is by a publisher you belong to, so your vote can't count.")


class BadVote(DomainError):
    code = "invalid_vote"
    message = _("Choose which answer is better, that both are as good, or that both are bad.")


class NotShareable(Conflict):
    code = "not_shareable"
    message = _("This GPT is not open to everybody, so a conversation with it can't be shared.")


class NothingToShare(Conflict):
    code = "nothing_to_share"
    message = _("There is no answer to share yet.")


class BadName(DomainError):
    code = "invalid_name"
    message = _("A name has at most 40 visible characters.")


class Revoked(DomainError):
    code = "revoked"
    status = 410
    message = _("This conversation is no longer shared.")
