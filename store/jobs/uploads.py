"""A file that is brought in pieces, so that a broken connection costs one piece and not the file.

Each piece is put into the artifact store before the row's offset moves past it, by one conditional UPDATE: what is acknowledged
is kept, of two pieces for one place one wins, and any web process can take the next. When the form is sent, the pieces are read
as one file and go the way of every file that people bring (`files.save`): hashed, counted, kept once. What nobody finishes expires.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from datetime import timedelta
from typing import IO, Any, BinaryIO

from django.core.files.uploadedfile import UploadedFile as SentFile
from django.db import transaction
from django.db.models import QuerySet, Sum
from django.utils import timezone
from django.utils.translation import gettext as _

from store.accounts.models import Membership, Publisher, User
from store.accounts.publishers import require_role
from store.catalog import artifacts, staging
from store.catalog.errors import ArtifactRejected
from store.errors import NotFound
from store.jobs import files, tensors
from store.jobs.errors import FileRejected, FileTooLarge, TooManyUploads, UploadLost, WrongOffset
from store.jobs.models import Upload, UploadedFile

Purpose = UploadedFile.Purpose
OF_PUBLISHERS = (Purpose.FINETUNE, Purpose.EVALUATION, Purpose.MODEL)
KEPT = timedelta(hours=24)  # after its last piece
STRAY_AFTER = timedelta(hours=1)  # a piece without an upload is removed; a younger one may belong to an upload just begun
UNFINISHED_AT_ONCE = 20  # of one publisher, or of one person's own
MAX_PIECES = 1000  # each is an object to be stored and read again
USUAL_PIECE_BYTES = 4 * 1024 * 1024
Check = Callable[[IO[bytes]], None]


def piece_bytes(most_bytes: int) -> int:
    """What the pages send at once of files of at most so many bytes: little is lost with one, and none has more than half of MAX_PIECES."""
    return max(USUAL_PIECE_BYTES, -(-most_bytes * 2 // MAX_PIECES))


def begin(user: User, publisher: Publisher | None, *, name: str, purpose: str, length_bytes: int, metadata: str = "") -> Upload:
    """An empty upload of a file of that length. `metadata` is kept as it was sent.

    Raises FileRejected, FileTooLarge and StorageFull as `files.save` would in the end, TooManyUploads, and what `require_role` does.
    """
    _require_may(user, publisher)
    if purpose not in ((Purpose.BATCH,) if publisher is None else OF_PUBLISHERS):
        raise FileRejected(
            _("A publisher's files are for fine-tuning, evaluation or versions, a person's own for batches."), param="purpose"
        )
    name = files.checked_name(name, purpose)
    if length_bytes == 0:
        raise FileRejected(_("The file is empty."), param="file")
    if length_bytes > (limit := files.limit_bytes(name, purpose)):
        raise files.too_large(limit)
    owner = publisher or user
    with transaction.atomic():
        files.lock(owner)
        unfinished = Upload.objects.filter(expires_at__gt=timezone.now(), file=None, publisher=publisher)
        if publisher is None:
            unfinished = unfinished.filter(created_by=user)
        if unfinished.count() >= UNFINISHED_AT_ONCE:
            raise TooManyUploads
        on_the_way = unfinished.filter(files.beside(purpose)).aggregate(total=Sum("length_bytes"))["total"] or 0
        files.require_place(owner, length_bytes, purpose=purpose, beside_bytes=on_the_way)
        whose = {"publisher": publisher, "created_by": user}
        what = {"purpose": purpose, "name": name, "length_bytes": length_bytes, "metadata": metadata}
        return Upload.objects.create(**whose, **what, expires_at=timezone.now() + KEPT)


def _require_may(user: User, publisher: Publisher | None) -> None:
    if publisher is not None:
        require_role(user, publisher, Membership.Role.OWNER, Membership.Role.MAINTAINER)


def find(user: User, public_id: str) -> Upload:
    """The person's own, not yet expired. Raises NotFound: for everybody else there is none."""
    kept = Upload.objects.filter(created_by=user, public_id=public_id, expires_at__gt=timezone.now())
    if (upload := kept.select_related("publisher", "created_by", "file").first()) is None:
        raise NotFound
    return upload


def unfinished(user: User, publisher: Publisher | None) -> QuerySet[Upload]:
    """The person's own of which no file was made yet, for this publisher or, without one, for themselves; first what expires first."""
    kept = Upload.objects.filter(created_by=user, publisher=publisher, file=None, expires_at__gt=timezone.now())
    return kept.order_by("expires_at", "pk")


def to_go_on_with(user: User, publisher: Publisher | None, public_id: str, *, purpose: str) -> Upload | None:
    """The one of those that an address names, if it is for this."""
    return unfinished(user, publisher).filter(public_id=public_id, purpose=purpose).first()


def arrived_sha256(upload: Upload) -> str:
    """Of what is kept of it, by which a browser that knows nothing of it sees that a file begins likewise. Reads every piece."""
    with staging.joined(upload.pieces) as arrived:
        return hashlib.file_digest(arrived, "sha256").hexdigest()  # type: ignore[arg-type]


def append(upload: Upload, *, offset_bytes: int, stream: BinaryIO, check: Check | None = None) -> None:
    """Adds what `stream` holds at the end, which must be at `offset_bytes`. `check` may refuse the piece by raising.

    Raises WrongOffset where the upload ends elsewhere, also when another piece was quicker, FileTooLarge beyond its length,
    FileRejected of too many pieces and of a file that turns out not to be what it is for, NotFound when it was given up meanwhile,
    and what `require_role` does of who has left the publisher; nothing is added then.
    """
    _require_may(upload.created_by, upload.publisher)
    if offset_bytes != upload.offset_bytes:
        raise WrongOffset
    if len(upload.pieces) >= MAX_PIECES:
        raise FileRejected(_("This upload has too many pieces. Begin again, with larger ones."))
    try:
        with artifacts.spooled(stream, max_bytes=upload.length_bytes - offset_bytes) as piece:
            if check is not None:
                check(piece.file)
            if piece.size_bytes:
                tensors.check_arrived(upload, piece.file, piece.size_bytes)
                _add(upload, piece.file, piece.size_bytes)
    except ArtifactRejected as error:
        raise FileTooLarge(_("More was sent than the file was said to have.")) from error


def _add(upload: Upload, piece: IO[bytes], size_bytes: int) -> None:
    name = f"{upload.public_id}-{upload.offset_bytes}-{secrets.token_hex(4)}"  # of two for one place each has its own
    staging.put(name, piece)
    here = Upload.objects.filter(pk=upload.pk, offset_bytes=upload.offset_bytes)  # and so with the pieces that `upload` knows
    after = {"offset_bytes": upload.offset_bytes + size_bytes, "pieces": [*upload.pieces, name], "expires_at": timezone.now() + KEPT}
    if not here.update(**after):
        staging.remove([name])
        raise WrongOffset if Upload.objects.filter(pk=upload.pk).exists() else NotFound
    for field, value in after.items():
        setattr(upload, field, value)


def cancel(upload: Upload) -> None:
    """Forgets the upload and its pieces; the file that was made of it stays."""
    Upload.objects.filter(pk=upload.pk).delete()
    staging.remove(upload.pieces)


def take(user: User, publisher: Publisher | None, sent: dict[str, Any], *, purpose: str) -> UploadedFile | None:
    """The file that a form brings, whichever way: in its field `file`, or before, as the upload that its field `upload` names.

    Raises what `files.save` does, and FileRejected for an upload that is not complete, not there any more or somebody else's.
    """
    file: SentFile | None = sent["file"]
    if file:
        return files.save(user, publisher, name=file.name or "", stream=file.file, purpose=purpose)  # type: ignore[arg-type]
    return finish(user, publisher, sent["upload"], purpose=purpose) if sent["upload"] else None


def finish(user: User, publisher: Publisher | None, public_id: str, *, purpose: str) -> UploadedFile:
    """The file that the pieces are together; asked again, the same. Raises as `take`."""
    try:
        upload = find(user, public_id)
    except NotFound as error:
        raise UploadLost(param="file") from error
    if (upload.publisher, upload.purpose) != (publisher, purpose):
        raise UploadLost(param="file")
    if upload.file is not None:
        return upload.file
    if not upload.is_complete:
        raise FileRejected(_("The file has not arrived in full. Choose it again: its upload goes on where it stopped."), param="file")
    try:
        file = files.save(user, publisher, name=upload.name, stream=staging.joined(upload.pieces), purpose=purpose)
    except FileNotFoundError as error:  # the same form sent twice, and the other one was quicker; or the artifact store has lost it
        now = Upload.objects.select_related("file").filter(pk=upload.pk).first()
        if now is None or now.file is None:  # none: it was cancelled, or expired, under this
            cancel(upload)
            raise UploadLost(param="file") from error
        return now.file
    Upload.objects.filter(pk=upload.pk).update(file=file, pieces=[])
    staging.remove(upload.pieces)
    return file


def sweep() -> int:
    """Forgets what has expired and removes the pieces that belong to no upload, torn ones too; returns how many there were."""
    now = timezone.now()
    Upload.objects.filter(expires_at__lte=now).delete()
    old = [name for name, stored_at in staging.waiting() if stored_at < now - STRAY_AFTER]
    known = set(Upload.objects.values_list("public_id", flat=True))
    stray = [name for name in old if name.partition("-")[0] not in known]
    staging.remove(stray)
    return len(stray) + staging.remove_torn(before=now - STRAY_AFTER)
