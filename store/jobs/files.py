"""Files that people bring: streamed into the artifact store, hashed on the way, equal bytes kept once."""

from __future__ import annotations

from pathlib import PurePath
from typing import BinaryIO

from django.conf import settings
from django.utils.translation import gettext as _

from store.accounts.models import Membership, Publisher, User
from store.accounts.publishers import require_role
from store.catalog import artifacts
from store.catalog.errors import ArtifactRejected
from store.jobs.errors import FileRejected, FileTooLarge
from store.jobs.models import UploadedFile

SUFFIXES = (".jsonl", ".json")


def save(user: User, publisher: Publisher, *, name: str, stream: BinaryIO, purpose: str) -> UploadedFile:
    """The file's row; the same bytes again give the row that is there. Raises FileRejected and FileTooLarge, and keeps nothing then."""
    require_role(user, publisher, Membership.Role.OWNER, Membership.Role.MAINTAINER)
    name = PurePath(name.replace("\\", "/")).name[-200:]
    if not name.lower().endswith(SUFFIXES):
        raise FileRejected(_("Choose a JSONL file: one JSON object on each line, named something.jsonl."), param="file")
    limit = settings.MAX_UPLOAD_BYTES
    try:
        sha256, size_bytes = artifacts.put_blob(stream, max_bytes=limit)
    except ArtifactRejected as error:
        raise FileTooLarge(_("The file is larger than the %(limit)s MB allowed.") % {"limit": limit // 1_000_000}, param="file") from error
    if size_bytes == 0:
        raise FileRejected(_("The file is empty."), param="file")
    same = UploadedFile.objects.filter(publisher=publisher, sha256=sha256, purpose=purpose, name=name).first()
    return same or UploadedFile.objects.create(
        publisher=publisher, created_by=user, purpose=purpose, name=name, sha256=sha256, size_bytes=size_bytes
    )
