"""Files that people bring: streamed into the artifact store, hashed on the way, equal bytes kept once."""

from __future__ import annotations

from pathlib import PurePath
from typing import BinaryIO

from django.conf import settings
from django.db import transaction
from django.db.models import Sum
from django.template.defaultfilters import filesizeformat
from django.utils.translation import gettext as _

from store.accounts.models import Membership, Publisher, User
from store.accounts.publishers import require_role
from store.catalog import artifacts
from store.catalog.artifacts import Spool
from store.catalog.errors import ArtifactRejected
from store.jobs.errors import FileRejected, FileTooLarge, StorageFull
from store.jobs.models import UploadedFile

SUFFIXES = (".jsonl", ".json", ".csv", ".txt")


def save(user: User, publisher: Publisher, *, name: str, stream: BinaryIO, purpose: str) -> UploadedFile:
    """The file's row; the same bytes again give the row that is there.

    Raises FileRejected, FileTooLarge and StorageFull, and keeps nothing then.
    """
    require_role(user, publisher, Membership.Role.OWNER, Membership.Role.MAINTAINER)
    name = PurePath(name.replace("\\", "/")).name[-200:]
    if not name.lower().endswith(SUFFIXES):
        raise FileRejected(_("Choose a file of JSON lines, a table or a text: named something.jsonl, .csv or .txt."), param="file")
    limit = settings.MAX_UPLOAD_BYTES
    try:
        with artifacts.spooled(stream, max_bytes=limit) as spool:
            if spool.size_bytes == 0:
                raise FileRejected(_("The file is empty."), param="file")
            return _keep(user, publisher, name, spool, purpose)
    except ArtifactRejected as error:
        raise FileTooLarge(_("The file is larger than the %(limit)s MB allowed.") % {"limit": limit // 1_000_000}, param="file") from error


def kept_bytes(publisher: Publisher) -> int:
    """What the publisher's files take of UPLOADED_BYTES_PER_PUBLISHER: equal ones once."""
    kept = UploadedFile.objects.filter(publisher=publisher).order_by().values("sha256", "size_bytes").distinct()
    return int(kept.aggregate(total=Sum("size_bytes"))["total"] or 0)


def _keep(user: User, publisher: Publisher, name: str, spool: Spool, purpose: str) -> UploadedFile:
    """Takes the file's place first, so that files that come at once never take more together than there is."""
    with transaction.atomic():
        Publisher.objects.select_for_update(no_key=True).get(pk=publisher.pk)
        same = UploadedFile.objects.filter(publisher=publisher, sha256=spool.sha256)
        file = same.filter(purpose=purpose, name=name).first()
        made = file is None
        if file is None:
            if not same.exists():
                _require_place(publisher, spool.size_bytes)
            bytes_of = {"sha256": spool.sha256, "size_bytes": spool.size_bytes}
            file = UploadedFile.objects.create(publisher=publisher, created_by=user, purpose=purpose, name=name, **bytes_of)
    try:
        spool.store()
    except BaseException:
        if made:
            file.delete()
        raise
    return file


def _require_place(publisher: Publisher, size_bytes: int) -> None:
    kept, limit = kept_bytes(publisher), settings.UPLOADED_BYTES_PER_PUBLISHER
    if kept + size_bytes > limit:
        message = _(
            "The files of %(publisher)s take %(kept)s of the %(limit)s allowed, and this one has %(size)s. "
            "Train on a file that is here already, or ask the store's operator for more room."
        )
        sizes = {"kept": filesizeformat(kept), "limit": filesizeformat(limit), "size": filesizeformat(size_bytes)}
        raise StorageFull(message % {"publisher": publisher.name, **sizes}, param="file")
