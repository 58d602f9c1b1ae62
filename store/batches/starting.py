"""A batch is begun: its file and its limits are looked at, the rest is done by the store's worker."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import partial

from django.conf import settings
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from store.accounts import audit
from store.accounts.models import User
from store.batches import sending
from store.batches.errors import BatchRejected, TooManyBatches
from store.batches.lines import ENDPOINTS
from store.batches.models import Batch
from store.jobs import files
from store.jobs.models import UploadedFile

WINDOWS = {"24h": timedelta(hours=24)}


def start(
    user: User, file_id: str, *, endpoint: str = ENDPOINTS[0], window: str = "24h", metadata: Mapping[str, str] | None = None
) -> Batch:
    """The batch, whose file is about to be checked. Raises BatchRejected and TooManyBatches, and then nothing is written."""
    if endpoint not in ENDPOINTS:
        raise BatchRejected(_("A batch can ask %(endpoints)s.") % {"endpoints": ", ".join(ENDPOINTS)}, param="endpoint")
    if window not in WINDOWS:
        raise BatchRejected(_("A batch has %(windows)s to complete.") % {"windows": ", ".join(WINDOWS)}, param="completion_window")
    with transaction.atomic():
        file = files.of_person(user).filter(public_id=file_id, purpose=UploadedFile.Purpose.BATCH).first()
        if file is None:
            raise BatchRejected(_("You have no file %(file)s for batches.") % {"file": file_id[:40]}, param="input_file_id")
        _require_place(user)
        batch = Batch.objects.create(
            user=user,
            endpoint=endpoint,
            metadata=dict(metadata or {}),
            name=file.name,
            input_file=file.public_id,
            input_sha256=file.sha256,
            expires_at=timezone.now() + WINDOWS[window],
        )
        audit.record(user, "batch.start", batch.public_id, file=file.public_id)
        transaction.on_commit(partial(sending.send, batch.pk))
    return batch


def _require_place(user: User) -> None:
    """Within the transaction that begins a batch, which makes those of one person wait for each other."""
    User.objects.select_for_update(no_key=True).get(pk=user.pk)
    limit = settings.BATCHES_PER_PERSON
    if Batch.objects.filter(user=user).exclude(state__in=Batch.ENDED).count() >= limit:
        message = ngettext(
            "At most %(limit)s batch of one person may be under way. Wait for its end, or cancel it.",
            "At most %(limit)s batches of one person may be under way. Wait until one has ended, or cancel one.",
            limit,
        )
        raise TooManyBatches(message % {"limit": limit})
