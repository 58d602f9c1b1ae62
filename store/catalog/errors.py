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


class VersionWithdrawn(DomainError):
    """What a pinned name answers after its publisher took the version back."""

    code = "version_withdrawn"
    status = 410


class IsCurrent(Conflict):
    code = "version_is_current"
    message = _("This is the current version, which the unpinned name means. Make another one current first.")


class BuiltOn(Conflict):
    code = "version_is_built_on"
    message = _(
        "Released versions are built on this one and would stop with it. Deprecate it; if it does harm, ask a reviewer to suspend it."
    )


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


class TransferOver(Conflict):
    code = "transfer_over"
    message = _("This offer was answered, taken back or has run out. Ask for a new one.")


class PictureRejected(DomainError):
    """A file that can't become an icon."""

    code = "picture_rejected"
