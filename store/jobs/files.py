"""Files that people bring: streamed into the artifact store, hashed on the way, equal bytes kept once."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import BinaryIO

from django.conf import settings
from django.db import transaction
from django.db.models import Q, QuerySet, Sum
from django.template.defaultfilters import filesizeformat
from django.utils.translation import gettext as _

from inference.protocol import BLOB_SUFFIXES
from store.accounts.models import Membership, Publisher, User
from store.accounts.publishers import require_role
from store.catalog import artifacts
from store.catalog.artifacts import Spool
from store.catalog.errors import ArtifactRejected
from store.errors import NotFound
from store.jobs.errors import FileRejected, FileTooLarge, StorageFull
from store.jobs.models import UploadedFile

SUFFIXES = (".jsonl", ".json", ".csv", ".txt")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".msgpack", ".npz", ".gguf", ".onnx", ".zip", ".tar", ".gz", ".py")
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,199}")  # of a file of a model: what a manifest takes
Purpose = UploadedFile.Purpose


def save(user: User, publisher: Publisher | None, *, name: str, stream: BinaryIO, purpose: str) -> UploadedFile:
    """The file's row; the same bytes again give the row that is there. Without a publisher it is the person's own.

    Raises FileRejected, FileTooLarge and StorageFull, and keeps nothing then.
    """
    if publisher is not None:
        require_role(user, publisher, Membership.Role.OWNER, Membership.Role.MAINTAINER)
    name = checked_name(name, purpose)
    try:
        with artifacts.spooled(stream, max_bytes=limit_bytes(name, purpose)) as spool:
            if spool.size_bytes == 0:
                raise FileRejected(_("The file is empty."), param="file")
            return _keep(user, publisher, name, spool, purpose)
    except ArtifactRejected as error:
        raise too_large(limit_bytes(name, purpose)) from error


def limit_bytes(name: str, purpose: str) -> int:
    """How large such a file may be: of a model's, only weights are larger than data."""
    of_weights = purpose == Purpose.MODEL and name.lower().endswith(".safetensors")
    return settings.MODEL_FILE_BYTES if of_weights else settings.MAX_UPLOAD_BYTES


def too_large(limit_bytes: int) -> FileTooLarge:
    limit = limit_bytes // 1_000_000
    return FileTooLarge(_("The file is larger than the %(limit)s MB allowed.") % {"limit": limit}, param="file")


def checked_name(name: str, purpose: str) -> str:
    """The name without its path and without what can't be shown. Raises FileRejected when a file of that name can't be what it is for."""
    name = "".join(filter(str.isprintable, PurePath(name.replace("\\", "/")).name))[-200:]
    if purpose == Purpose.MODEL:
        return _checked_model_name(name)
    if purpose == Purpose.BATCH and not name.lower().endswith(".jsonl"):
        raise FileRejected(_("Choose a file of requests, one JSON object on each line: named something.jsonl."), param="file")
    if not name.lower().endswith(SUFFIXES):
        raise FileRejected(_("Choose a file of JSON lines, a table or a text: named something.jsonl, .csv or .txt."), param="file")
    return name


def _checked_model_name(name: str) -> str:
    if name.lower().endswith(PICKLES):
        raise FileRejected(
            _("%(name)s may carry code, or is packed, and is not taken. Save the weights as safetensors.") % {"name": name}, param="file"
        )
    if PurePath(name).suffix not in BLOB_SUFFIXES or not NAME.fullmatch(name):
        message = _("%(name)s is not taken: a model's files are safetensors, JSON and text, named by Latin letters, digits and . _ -")
        raise FileRejected(message % {"name": name}, param="file")
    return name


def of_person(user: User) -> QuerySet[UploadedFile]:
    """The person's own, apart from those of publishers; what was answered to batches among them."""
    return UploadedFile.objects.filter(publisher=None, created_by=user)


def delete(user: User, file: UploadedFile) -> None:
    """Forgets the person's own file. Raises NotFound for anybody else's."""
    if not of_person(user).filter(pk=file.pk).delete()[0]:
        raise NotFound


def kept_bytes(owner: Publisher | User, purpose: str = Purpose.FINETUNE) -> int:
    """What the files of a publisher, or those a person brought, take of `allowed_bytes`: equal ones once."""
    kept = _brought_by(owner).filter(beside(purpose)).order_by().values("sha256", "size_bytes").distinct()
    return int(kept.aggregate(total=Sum("size_bytes"))["total"] or 0)


def allowed_bytes(purpose: str) -> int:
    """Of all files of a publisher together that share a limit with those for this."""
    return settings.MODEL_BYTES_PER_PUBLISHER if purpose == Purpose.MODEL else settings.UPLOADED_BYTES_PER_PUBLISHER


def beside(purpose: str) -> Q:
    """The files, or uploads, that share a limit with those for this: a model's files have one of their own."""
    return Q(purpose=Purpose.MODEL) if purpose == Purpose.MODEL else ~Q(purpose=Purpose.MODEL)


def _brought_by(owner: Publisher | User) -> QuerySet[UploadedFile]:
    if isinstance(owner, Publisher):
        return UploadedFile.objects.filter(publisher=owner)
    return of_person(owner).exclude(purpose=Purpose.BATCH_OUTPUT)


def _keep(user: User, publisher: Publisher | None, name: str, spool: Spool, purpose: str) -> UploadedFile:
    """No row before the bytes are stored for good. Files that come at once never take more together than there is: of those that
    find no place any more the bytes are collected, since nothing refers to them.
    """
    owner = publisher or user
    same = _brought_by(owner).filter(beside(purpose), sha256=spool.sha256)
    if not same.exists():
        require_place(owner, spool.size_bytes, purpose=purpose)
    spool.store()
    with transaction.atomic():
        lock(owner)
        if (file := same.filter(purpose=purpose, name=name).first()) is not None:
            return file
        if not same.exists():
            require_place(owner, spool.size_bytes, purpose=purpose)
        bytes_of = {"sha256": spool.sha256, "size_bytes": spool.size_bytes}
        return UploadedFile.objects.create(publisher=publisher, created_by=user, purpose=purpose, name=name, **bytes_of)


def lock(owner: Publisher | User) -> None:
    """Within a transaction: makes those who take place of the owner's wait for each other."""
    (Publisher if isinstance(owner, Publisher) else User).objects.select_for_update(no_key=True).get(pk=owner.pk)


def require_place(owner: Publisher | User, size_bytes: int, *, purpose: str, beside_bytes: int = 0) -> None:
    """Raises StorageFull when there is no place for so many bytes beside the owner's files and `beside_bytes` on their way."""
    kept, limit = kept_bytes(owner, purpose) + beside_bytes, allowed_bytes(purpose)
    if kept + size_bytes > limit:
        message = _(
            "The files of %(publisher)s take %(kept)s of the %(limit)s allowed, and this one has %(size)s. "
            "Train on a file that is here already, or ask the store's operator for more room."
        )
        if purpose == Purpose.MODEL:
            message = _(
                "The files of %(publisher)s that are no version yet take %(kept)s of the %(limit)s allowed, and this one has %(size)s. "
                "Make versions of them or discard them, or ask the store's operator for more room."
            )
        elif isinstance(owner, User):
            message = _(
                "The files of %(publisher)s take %(kept)s of the %(limit)s allowed, and this one has %(size)s. "
                "Delete files through the API, or ask the store's operator for more room."
            )
        sizes = {"kept": filesizeformat(kept), "limit": filesizeformat(limit), "size": filesizeformat(size_bytes)}
        raise StorageFull(message % {"publisher": owner.name if isinstance(owner, Publisher) else owner.username, **sizes}, param="file")
