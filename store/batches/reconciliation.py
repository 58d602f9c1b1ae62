"""What nobody else does, every few seconds and safe to run twice at once: batches expire, and what was lost is done again."""

from __future__ import annotations

from store.accounts.models import User
from store.batches import ending, sending, shards
from store.batches.models import Batch


def reconcile() -> None:
    ending.expire()
    ending.cancel_unavailable()
    under_way = sending.with_jobs_under_way()
    for pk in Batch.objects.filter(under_way, state__in=Batch.ENDING).values_list("pk", flat=True):
        ending.stop(pk)
    stuck = Batch.objects.filter(~under_way, state=Batch.State.IN_PROGRESS)  # its shards wait for places, or were forgotten
    for user in User.objects.filter(pk__in=stuck.values("user")):
        shards.advance(user)
    for pk in sending.due().values_list("pk", flat=True):
        sending.send(pk)
