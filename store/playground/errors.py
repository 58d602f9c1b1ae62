"""Why a conversation does not go on."""

from __future__ import annotations

from django.utils.translation import gettext_lazy as _

from store.errors import Conflict, DomainError, NotFound


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
