"""Weights or an adapter that a publisher brings, file by file, until a draft version is made of them.

A folder takes files while nobody checks them. A worker checks all of them together, and tells everything that is wrong by file;
what is right it keeps as an artifact. The files themselves are forgotten when a version was made, or a week after the last change.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from store.accounts.models import Publisher, User
from store.accounts.publishers import require_role
from store.catalog import artifacts, importing, publishing
from store.catalog.models import Artifact, Listing, Version
from store.catalog.revisions import EDITORS
from store.errors import Conflict, NotFound
from store.jobs import dispatch, files, finetunes, uploads
from store.jobs.errors import BaseNotTrainable, FileRejected, FolderIncomplete, FolderUnderCheck, NothingToPublish, UploadLost
from store.jobs.models import Job, ModelFolder, UploadedFile
from store.notifications.messages import notify
from store.notifications.models import Notification

KEPT = timedelta(days=7)  # after the last change
STRAY_AFTER = timedelta(hours=1)  # a younger file may be about to come into a folder
MAX_FILES = 200
NEEDED = {"weights": ("config.json", "tokenizer.json"), "adapter": ("adapter_config.json", "adapter_model.safetensors")}
OF_ADAPTERS = frozenset({*NEEDED["adapter"], "README.md"})


def begin(user: User, listing: Listing, *, kind: str, base: Version | None) -> ModelFolder:
    """An empty folder. An adapter has a base that this user may train; weights may have one, which they were trained from.

    Raises BaseNotTrainable, and what `require_role` does.
    """
    require_role(user, listing.publisher, *EDITORS)
    if kind not in ModelFolder.Kind.values:
        raise NotFound
    if (base is None and kind == ModelFolder.Kind.ADAPTER) or (
        base is not None and not finetunes.trainable_bases(user).filter(pk=base.pk).exists()
    ):
        raise BaseNotTrainable(param="base")
    return ModelFolder.objects.create(listing=listing, kind=kind, base=base, created_by=user)


def add(user: User, folder: ModelFolder, sent: dict[str, Any]) -> UploadedFile:
    """Puts a file into the folder, in place of one of the same name: as a form brings it, or the upload that it names.

    Raises FolderUnderCheck, FileRejected, and what `uploads.take` does.
    """
    _require_changeable(user, folder)
    publisher = folder.listing.publisher
    file = uploads.take(user, publisher, sent, purpose=UploadedFile.Purpose.MODEL)
    if file is None:
        raise FileRejected(_("Choose files to bring."), param="file")
    try:
        _require_wanted(folder, file)
        with transaction.atomic():
            files.lock(publisher)
            _changed(folder)
            replaced = list(folder.files.filter(name=file.name).exclude(pk=file.pk))
            folder.files.remove(*replaced)
            if folder.files.count() >= MAX_FILES:
                raise FileRejected(_("A folder has at most %(limit)s files.") % {"limit": MAX_FILES}, param="file")
            if not UploadedFile.objects.filter(pk=file.pk).exists():  # another folder had it, and was discarded just now
                raise UploadLost(param="file")
            folder.files.add(file)
            _drop(replaced)
    except FileRejected:
        _drop([file])
        raise
    return file


def take_out(user: User, folder: ModelFolder, public_id: str) -> None:
    """Raises FolderUnderCheck and NotFound."""
    _require_changeable(user, folder)
    with transaction.atomic():
        files.lock(folder.listing.publisher)
        _changed(folder)
        file = folder.files.filter(public_id=public_id).first()
        if file is None:
            raise NotFound
        folder.files.remove(file)
        _drop([file])


def discard(user: User, folder: ModelFolder) -> None:
    """Forgets the folder and its files. Raises FolderUnderCheck."""
    _require_changeable(user, folder)
    _forget(folder)


def missing(folder: ModelFolder) -> list[str]:
    """Names of files without which there is nothing to check."""
    names = set(folder.files.values_list("name", flat=True))
    found = [name for name in NEEDED[folder.kind] if name not in names]
    weighs = any(name.endswith(".safetensors") for name in names)
    return found if weighs or folder.kind == ModelFolder.Kind.ADAPTER else [*found, "model.safetensors"]


def check(user: User, folder: ModelFolder) -> Job:
    """Has a worker check the files. Raises FolderUnderCheck and FolderIncomplete."""
    _require_changeable(user, folder)
    if lacking := missing(folder):
        raise FolderIncomplete(_("Still missing: %(names)s.") % {"names": ", ".join(lacking)})
    base = folder.base.artifact if folder.base else None
    listed = [{"path": file.name, "sha256": file.sha256, "size_bytes": file.size_bytes} for file in folder.files.order_by("name")]
    params = {"kind": folder.kind, "base": base.digest if base else "", "files": listed, "name": folder.listing.full_name}
    with transaction.atomic():
        _changed(folder)
        publisher = folder.listing.publisher
        job = dispatch.create(Job.Kind.IMPORT, params=params, publisher=publisher, user=user, subject=folder.public_id)
        ModelFolder.objects.filter(pk=folder.pk).update(job=job)
    folder.job = job
    return job


def ended(job: Job) -> None:
    """Tells who asked for the check; called in the transaction that ends the job."""
    if job.created_by is None or job.state == Job.State.CANCELLED:
        return
    kind = Notification.Kind.JOB_SUCCEEDED if job.state == Job.State.SUCCEEDED else Notification.Kind.JOB_FAILED
    subject = str(job.params.get("name") or job.public_id)
    url = f"/studio/jobs/{job.public_id}/"
    notify([job.created_by], kind, key=f"{job.cause}:{job.attempt}:{job.state}", params={"subject": subject}, url=url)


def make_version(user: User, folder: ModelFolder, *, number: str, change_log: str = "") -> Version:
    """A draft of what was checked; the folder is forgotten then.

    Raises NothingToPublish before a check has succeeded, Conflict for weights that another publisher has released, and what the
    acts of versions do.
    """
    require_role(user, folder.listing.publisher, *EDITORS)
    job = folder.job
    if job is None or job.state != Job.State.SUCCEEDED:
        raise NothingToPublish(_("A version is made of files that were checked and found good."))
    artifact = artifacts.record(job.result["manifest"])
    _require_own(folder.listing.publisher, artifact)
    made: dict[str, Any] = {"number": number, "artifact": artifact, "made_by": job.public_id, "change_log": change_log}
    made |= {"facts": importing.facts_of(job.result["facts"]), "base": folder.base}
    with transaction.atomic():
        if folder.kind == ModelFolder.Kind.ADAPTER:
            version = publishing.create_adapter_version(user, folder.listing, **made)
        else:
            version = publishing.create_weights_version(user, folder.listing, **made)
        _forget(folder)
    return version


def sweep() -> int:
    """Forgets folders that nobody has changed for a week, and files that came into none; returns how many folders there were."""
    old = list(ModelFolder.objects.filter(changed_at__lt=timezone.now() - KEPT).select_related("listing__publisher", "job"))
    old = [folder for folder in old if not _is_checked_now(folder)]
    for folder in old:
        _forget(folder)
    strays = UploadedFile.objects.filter(purpose=UploadedFile.Purpose.MODEL, folders=None, created_at__lt=timezone.now() - STRAY_AFTER)
    strays.delete()
    return len(old)


def find(user: User, listing: Listing, public_id: str) -> ModelFolder:
    """Raises NotFound."""
    require_role(user, listing.publisher, *EDITORS)
    found = of_listing(listing).filter(public_id=public_id).first()
    if found is None:
        raise NotFound
    return found


def of_listing(listing: Listing) -> QuerySet[ModelFolder]:
    return ModelFolder.objects.filter(listing=listing).select_related("listing__publisher", "base__listing__publisher", "job")


def _forget(folder: ModelFolder) -> None:
    with transaction.atomic():
        files.lock(folder.listing.publisher)
        kept = list(folder.files.all())
        ModelFolder.objects.filter(pk=folder.pk).delete()
        _drop(kept)


def _drop(brought: list[UploadedFile]) -> None:
    """Deletes those that are in no folder any more."""
    UploadedFile.objects.filter(pk__in=[file.pk for file in brought], purpose=UploadedFile.Purpose.MODEL, folders=None).delete()


def _changed(folder: ModelFolder) -> None:
    """Within a transaction: makes those who change it wait for each other. Raises NotFound, FolderUnderCheck."""
    now = ModelFolder.objects.select_for_update(of=("self",)).select_related("job").filter(pk=folder.pk).first()
    if now is None:
        raise NotFound
    if _is_checked_now(now):
        raise FolderUnderCheck
    ModelFolder.objects.filter(pk=folder.pk).update(job=None, changed_at=timezone.now())
    folder.job = None


def _is_checked_now(folder: ModelFolder) -> bool:
    return folder.job is not None and not folder.job.has_ended


def _require_changeable(user: User, folder: ModelFolder) -> None:
    require_role(user, folder.listing.publisher, *EDITORS)
    if _is_checked_now(folder):
        raise FolderUnderCheck


def _require_wanted(folder: ModelFolder, file: UploadedFile) -> None:
    if folder.kind == ModelFolder.Kind.ADAPTER and file.name not in OF_ADAPTERS:
        message = _("%(name)s is not needed: an adapter has adapter_config.json and adapter_model.safetensors, and all else is its base's.")
        raise FileRejected(message % {"name": file.name}, param="file")


def _require_own(publisher: Publisher, artifact: Artifact) -> None:
    """Nobody lists as their own what another publisher has released, and so asks for a price that is theirs."""
    others = Version.objects.filter(artifact=artifact, state=Version.State.RELEASED).exclude(listing__publisher=publisher)
    if (known := others.select_related("listing__publisher").first()) is not None:
        raise Conflict(_("These files are %(name)s, which is in the store already. Build on it instead.") % {"name": known.full_name})
