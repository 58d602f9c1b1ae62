"""What can be wrong with a submission or a decision."""

from __future__ import annotations

from django.utils.translation import gettext_lazy as _

from store.errors import Conflict, DomainError


class AlreadySubmitted(Conflict):
    code = "already_submitted"
    message = _("Something of this GPT is in review already. Withdraw it, or wait for the decision.")


class NothingToSubmit(DomainError):
    code = "nothing_to_submit"
    message = _("There is nothing to submit: make a draft of a version or of the texts first.")


class Decided(Conflict):
    code = "already_decided"
    message = _("This has been decided or withdrawn in the meantime. Reload the page to see how.")


class StillChecking(Conflict):
    code = "still_checking"
    message = _("The automated checks are still running. Decide when they have ended.")


class ClaimedByOther(Conflict):
    code = "claimed_by_other"
    message = _("Another reviewer is working on this.")


class ReasonMissing(DomainError):
    code = "reason_missing"
    message = _("Give the publisher a reason.")
