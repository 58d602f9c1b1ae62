"""Why a batch is not begun, or not done."""

from __future__ import annotations

from django.utils.translation import gettext_lazy as _

from store.errors import Conflict, DomainError


class BatchRejected(DomainError):
    """The file as a whole can't be a batch."""

    code = "invalid_batch"


class TooManyBatches(Conflict):
    """The person has as many under way as one may."""

    code = "too_many_batches"


class NotCancellable(Conflict):
    code = "batch_not_cancellable"
    message = _("This batch has ended or is ending already. Reload the page to see how.")
