"""What can be wrong with an act on a job, a file or a fine-tune."""

from __future__ import annotations

from django.utils.translation import gettext_lazy as _

from store.errors import Conflict, DomainError


class WrongState(Conflict):
    code = "job_wrong_state"
    message = _("The job is no longer in a state where this is possible. Reload the page to see what it is doing.")


class NotRetriable(Conflict):
    code = "job_not_retriable"
    message = _("Trying again can't help: the data itself can't be trained on. Correct the file and start a new fine-tune.")


class FileRejected(DomainError):
    code = "file_rejected"


class FileTooLarge(FileRejected):
    code = "file_too_large"
    status = 413


class StorageFull(FileRejected):
    """The publisher's files take all the room they may."""

    code = "storage_full"
    status = 409


class InvalidUpload(DomainError):
    """A header of the upload protocol is missing or says nothing that can be understood."""

    code = "invalid_upload"


class NotSignedIn(DomainError):
    code = "not_signed_in"
    status = 401
    message = _("You are no longer signed in. Sign in and choose the file again: its upload goes on where it stopped.")


class WrongVersion(DomainError):
    code = "wrong_version"
    status = 412
    message = _("Uploads speak tus 1.0.0 here: send “Tus-Resumable: 1.0.0”.")


class WrongContentType(DomainError):
    code = "wrong_content_type"
    status = 415
    message = _("A piece of an upload is sent as application/offset+octet-stream.")


class WrongOffset(Conflict):
    """A piece of an upload is for another place than its end."""

    code = "wrong_offset"
    message = _("The upload does not end where this piece begins. Ask how far it is, and go on from there.")


class WrongChecksum(DomainError):
    """tus 1.0.0 has a status of its own for it."""

    code = "wrong_checksum"
    status = 460
    message = _("This piece has changed on its way. Send it again.")


class TooManyUploads(Conflict):
    code = "too_many_uploads"
    message = _("Too many uploads have begun and not ended. End or cancel one; those that nobody goes on with are forgotten after a day.")


class UploadLost(FileRejected):
    code = "upload_lost"
    message = _("The upload of this file is not here any more. Choose the file again.")


class FolderIncomplete(Conflict):
    """Files that must be there are not."""

    code = "folder_incomplete"


class FolderUnderCheck(Conflict):
    code = "folder_under_check"
    message = _("These files are being checked. Wait for the end of the check before you change them.")


class TooManyFinetunes(Conflict):
    """The person has as many waiting or running as one may."""

    code = "too_many_finetunes"


class InvalidSetting(DomainError):
    """A setting of a fine-tune is out of its bounds; `param` names it."""

    code = "invalid_setting"


class BaseNotTrainable(DomainError):
    code = "base_not_trainable"
    message = _("This GPT can't be fine-tuned. Choose full weights whose publisher allows it.")


class TooLargeToTrain(DomainError):
    """The base has more weights than are all trained here."""

    code = "too_large_to_train"


class NothingToPublish(Conflict):
    code = "nothing_to_publish"
    message = _("Only a fine-tune that has succeeded can become a version.")


class NotEvaluable(Conflict):
    code = "not_evaluable"
    message = _("This version can't be measured now: it was taken down, or what it builds on was.")


class EvaluationsUsedUp(Conflict):
    """The publisher has begun as many of priced GPTs within a day as one may."""

    code = "evaluations_used_up"


class EvaluationUnderWay(Conflict):
    """One of this version waits or runs."""

    code = "evaluation_under_way"
    message = _("This version is being measured already. Wait for its end, or cancel it.")
