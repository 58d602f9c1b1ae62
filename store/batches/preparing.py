"""From a file of requests to shards: every line is read, what it can cost at most is held, and the first shards get their turn.

Runs in the store's worker, as often as it takes: blobs are named by what is in them, and only one call begins the batch.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone, translation
from django.utils.translation import gettext as _

from inference.protocol import GenerationRequest
from store.batches import sending, shards
from store.batches.errors import BatchRejected
from store.batches.lines import LineReader, encoded, most_bytes
from store.batches.models import Batch
from store.billing import ledger, prices
from store.billing.errors import InsufficientCredit
from store.catalog import artifacts
from store.errors import DomainError
from store.generation import admission

SHARD_LINES = 100
SHARD_BYTES = 32 * 1024 * 1024  # of its requests, or of its answers if they become as long as they may
SETTLED_WITHIN = timedelta(days=2)  # after it expired
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass
class Plan:
    """What became of the file."""

    shards: list[dict[str, Any]] = field(default_factory=list)
    total: int = 0
    refused: int = 0
    reserved_micro: int = 0
    due: prices.Due | None = None  # from the first request on


@dataclass
class _Shard:
    """The one that is being filled."""

    lines: list[bytes] = field(default_factory=list)
    requests: int = 0
    request_bytes: int = 0
    answer_bytes: int = 0

    @property
    def is_full(self) -> bool:
        return len(self.lines) >= SHARD_LINES or max(self.request_bytes, self.answer_bytes) >= SHARD_BYTES

    def add(self, line: bytes) -> None:
        self.lines.append(line)
        self.request_bytes += len(line)

    def store(self) -> dict[str, Any]:
        sha256, _size = artifacts.put_blob(io.BytesIO(b"".join(self.lines)))
        return {"sha256": sha256, "requests": self.requests}


def prepare(public_id: str) -> bool:
    """Begins the batch or fails it, in the language of its owner; whether this call did it."""
    batch = Batch.objects.select_related("user").filter(public_id=public_id, state=Batch.State.VALIDATING).first()
    if batch is None:
        return False
    with translation.override(batch.user.language):
        try:
            reader = LineReader(batch.user, batch.endpoint, batch.expires_at.timestamp())
            plan = _plan(reader, artifacts.read_blob(batch.input_sha256, max_bytes=settings.MAX_UPLOAD_BYTES))
            return _begin(batch, plan, reader)
        except DomainError as error:
            return _fail(batch, error)


def _plan(reader: LineReader, raw: bytes) -> Plan:
    """Raises BatchRejected."""
    plan, shard = Plan(), _Shard()
    for number, line in enumerate(io.BytesIO(raw.removeprefix(BYTE_ORDER_MARK)), start=1):
        if not line.strip():
            continue
        plan.total += 1
        if plan.total > settings.MAX_BATCH_LINES:
            message = _("The file has more than the %(limit)s requests allowed in a batch. Cut it into several.")
            raise BatchRejected(message % {"limit": settings.MAX_BATCH_LINES}, param="input_file_id")
        record = reader.read(line.strip(), number)
        shard.add(encoded(record))
        if "request" in record:
            _count(plan, shard, reader, GenerationRequest.from_json(record["request"]))
        else:
            plan.refused += 1
        if shard.is_full:
            plan.shards.append(shard.store())
            shard = _Shard()
    if not plan.total:
        raise BatchRejected(_("The file has no requests."), param="input_file_id")
    if shard.lines:
        plan.shards.append(shard.store())
    return plan


def _count(plan: Plan, shard: _Shard, reader: LineReader, order: GenerationRequest) -> None:
    assert reader.version is not None
    if plan.due is None:
        plan.due = prices.due(reader.version, reader.user)
    shard.requests += 1
    shard.answer_bytes += most_bytes(order)
    plan.reserved_micro += admission.most_it_can_cost(reader.version, order, plan.due.price)


def _begin(batch: Batch, plan: Plan, reader: LineReader) -> bool:
    """Raises InsufficientCredit, and then nothing is held."""
    due = plan.due or prices.Due()
    with transaction.atomic():
        begun = Batch.objects.filter(pk=batch.pk, state=Batch.State.VALIDATING).update(
            state=Batch.State.IN_PROGRESS,
            version=reader.version,
            model=reader.model,
            shards=plan.shards,
            total=plan.total,
            failed=plan.refused,
            input_price_micro=due.price.input_micro,
            output_price_micro=due.price.output_micro,
            reserved_micro=plan.reserved_micro,
            in_progress_at=timezone.now(),
            sent_at=None,
        )
        if not begun:
            return False
        if plan.reserved_micro:
            _reserve(batch, plan.reserved_micro, due)
        shards.advance(batch.user)
    return True


def _reserve(batch: Batch, amount_micro: int, due: prices.Due) -> None:
    until = batch.expires_at + SETTLED_WITHIN
    try:
        ledger.reserve(batch.user, cause=batch.cause, amount_micro=amount_micro, expires_at=until, parts=due.parts)
    except InsufficientCredit as error:
        message = _(
            "Your credit does not cover the most this batch can cost. Ask for shorter answers, or ask the store's operator for credit."
        )
        raise InsufficientCredit(message, **error.detail) from error


def _fail(batch: Batch, error: DomainError) -> bool:
    said = {"code": error.code, "message": str(error), "param": error.param, "line": None}
    with transaction.atomic():
        failed = Batch.objects.filter(pk=batch.pk, state=Batch.State.VALIDATING).update(
            state=Batch.State.FAILED, errors=[said], ended_at=timezone.now()
        )
        if failed:
            sending.tell(batch, Batch.State.FAILED)
    return bool(failed)
