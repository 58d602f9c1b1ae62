"""What can go wrong with money."""

from __future__ import annotations

from django.utils.translation import gettext_lazy as _

from store.errors import DomainError


class InsufficientCredit(DomainError):
    """The wallet can't cover the most that this could cost. `detail` carries `needed_micro` and `available_micro`."""

    code = "insufficient_credit"
    status = 402
    message = _("Your credit does not cover the most this could cost. Ask for a shorter answer, or ask the store's operator for credit.")


class AccessNotOffered(DomainError):
    code = "access_not_offered"
    status = 409
    message = _("Monthly access to this GPT is not offered at the moment.")


class NoRefund(DomainError):
    code = "no_refund"
    status = 409
    message = _("This can't be given back: it was bought more than two days ago, or has been used.")


class InvalidAmount(DomainError):
    code = "invalid_amount"
    message = _("Write an amount above zero and not above 1,000,000.")
