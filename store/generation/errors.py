"""Why a generation is not begun."""

from __future__ import annotations

from django.utils.translation import gettext_lazy as _

from store.errors import DomainError, TooMany


class BadMessages(DomainError):
    code = "invalid_messages"


class BadSampling(DomainError):
    code = "invalid_value"


class NoWorker(DomainError):
    code = "no_worker"
    status = 503
    message = _("No worker that could answer is running right now. Nothing was charged; try again in a few minutes.")


class SignInNeeded(DomainError):
    code = "sign_in_required"
    status = 401
    message = _("This GPT has a price. Sign in to use it.")


class Overloaded(TooMany):
    """The requests under way on one base have reached their bound."""

    code = "overloaded"
    message = _("Many people are using this model right now. Try again in a few seconds.")


class TriesUsedUp(TooMany):
    code = "tries_used_up"
    message = _("You have used today's tries without an account. Sign up to go on; it is free.")
