"""What can be wrong with a listing, a version, a text or an artifact."""

from __future__ import annotations

from django.utils.translation import gettext_lazy as _

from store.errors import Conflict, DomainError


class InvalidListing(DomainError):
    """A field of a listing; `param` names it."""

    code = "invalid_listing"


class NameTaken(Conflict):
    code = "name_taken"
    message = _("This publisher already has a GPT of that name. Choose another one.")


class InvalidText(DomainError):
    """A name, summary or description; `param` is "<language>.<field>"."""

    code = "invalid_text"


class InvalidVersion(DomainError):
    """A field of a version; `param` names it."""

    code = "invalid_version"


class NumberTaken(Conflict):
    code = "version_taken"
    message = _("There is already a version of that number. Choose a higher one.")


class Sealed(Conflict):
    code = "version_sealed"
    message = _("What was submitted can't be changed any more. Make a new version.")


class BaseUnavailable(Conflict):
    code = "base_unavailable"
    message = _("The GPT it builds on can't be used at the moment. Choose another base.")


class AlreadyUsed(Conflict):
    code = "already_used"
    message = _("This draft has been tried, so its requests must keep naming it. Make a new version instead.")


class FinetuneNotAllowed(DomainError):
    code = "finetune_not_allowed"
    status = 403
    message = _("The publisher of this base does not allow others to fine-tune it.")


class ArtifactRejected(DomainError):
    """A file or a folder of files that the store does not take."""

    code = "artifact_rejected"
    message = _("These files can't be taken.")
