"""What a batch was answered, as files of OpenAI's form: one line for each request, in the order in which they were asked.

The answers stand in one file and the failures in another. Runs in the store's worker, as often as it takes: only one call ends the batch.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, BinaryIO

import structlog
from django.db import transaction
from django.utils import timezone, translation
from django.utils.translation import gettext as _

from inference.protocol import Answered, GenerationRequest
from inference.sampling_params import Grammar
from store.api.errors import envelope
from store.api.openai.chunks import Answer, failure_of
from store.api.openai.spoken import Spoken
from store.api.openai.tools import Tools
from store.batches import sending
from store.batches.models import Batch
from store.billing import ledger, prices
from store.catalog import artifacts, search
from store.catalog.errors import ArtifactRejected
from store.errors import DomainError
from store.jobs.models import Job, UploadedFile

log = structlog.get_logger(__name__)

MAX_BLOB_BYTES = 256 * 1024 * 1024
MALFORMED = (AttributeError, IndexError, KeyError, TypeError, ValueError)
CLOCKS_DIFFER_BY = timedelta(minutes=1)  # an engine may find that the time is over before the store does
TOKENS = ("prompt_tokens", "completion_tokens", "cached_tokens")
Record = Mapping[str, Any]  # a line of a shard, as `store.batches.lines` writes it


@dataclass
class _Written:
    """What stands in the files so far."""

    completed: int = 0
    failed: int = 0
    expired: int = 0  # for which there was no time
    tokens: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TOKENS, 0))


def write_results(public_id: str) -> bool:
    """Ends the batch with its files; whether this call did it."""
    batch = Batch.objects.select_related("user", "version__listing").filter(public_id=public_id, state__in=Batch.ENDING).first()
    if batch is None or batch.jobs.exclude(state__in=Job.ENDED).exists():
        return False
    with translation.override(batch.user.language), ExitStack() as stack:
        output, errors = (stack.enter_context(tempfile.TemporaryFile(prefix="results-")) for _place in range(2))
        written = _write(batch, output, errors)
        files = {"output_file": _stored(output), "error_file": _stored(errors)}
    return _end(batch, written, files)


def _write(batch: Batch, output: BinaryIO, errors: BinaryIO) -> _Written:
    written, jobs = _Written(), {job.params["number"]: job for job in batch.jobs}
    for number, shard in enumerate(batch.shards):
        job = jobs.get(number)
        answers = _kept(job) if job is not None else {}
        for record in _lines(shard["sha256"]):
            line, is_answer = _line(batch, record, answers.get(record["number"]), job, written)
            (output if is_answer else errors).write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
    return written


def _line(batch: Batch, record: Record, answered: Answered | None, job: Job | None, written: _Written) -> tuple[dict[str, Any], bool]:
    """A line of the results, and whether it is an answer."""
    line = {"id": f"batch_req_{record['id'].removeprefix('req_')}", "custom_id": record["custom_id"], "response": None, "error": None}
    if "refused" in record:
        written.failed += 1
        return line | _refused(record), False
    try:
        if answered is not None:
            return line | _answer(batch, record, answered, written), failure_of(answered.finished, rule=record["rule"]) is None
    except MALFORMED:  # a worker may say anything
        log.exception("answer of a worker not understood", batch=batch.public_id, generation=record["id"])
    return line | {"error": _unanswered(batch, job, written)}, False


def _answer(batch: Batch, record: Record, answered: Answered, written: _Written) -> dict[str, Any]:
    """What the API would have answered, counted once it is understood."""
    if failure := failure_of(answered.finished, rule=record["rule"]):
        written.failed += 1
        return {"response": _response(record, failure.status, envelope(failure))}
    completion, usage = _completion(batch, record, answered), {name: int(answered.finished["usage"].get(name, 0)) for name in TOKENS}
    written.completed += 1
    for name in TOKENS:
        written.tokens[name] += usage[name]
    return {"response": _response(record, 200, completion)}


def _response(record: Record, status: int, body: dict[str, Any]) -> dict[str, Any]:
    return {"status_code": status, "request_id": record["id"], "body": body}


def _refused(record: Record) -> dict[str, Any]:
    refused = record["refused"]
    if refused["status"]:
        error = DomainError(refused["message"], param=refused["param"])
        error.code, error.status = refused["code"], refused["status"]
        return {"response": _response(record, refused["status"], envelope(error))}
    return {"error": {"code": refused["code"], "message": refused["message"], "param": refused["param"], "line": record["number"]}}


def _unanswered(batch: Batch, job: Job | None, written: _Written) -> dict[str, Any]:
    if job is not None and job.state == Job.State.FAILED:
        return _failed_at(job.error_code, written)
    if batch.ending == Batch.State.CANCELLED:
        return {"code": "batch_cancelled", "message": _("The batch was cancelled before this request was answered.")}
    if batch.ending != Batch.State.EXPIRED and timezone.now() < batch.expires_at - CLOCKS_DIFFER_BY:
        return _failed_at("internal_error", written)
    written.expired += 1
    return {"code": "batch_expired", "message": _("This request could not be answered before the batch expired.")}


def _failed_at(code: str, written: _Written) -> dict[str, Any]:
    written.failed += 1
    return {"code": code, "message": _("The workers failed at this request. Ask it again.")}


def _completion(batch: Batch, record: Record, answered: Answered) -> dict[str, Any]:
    """The object that the API answers."""
    request = GenerationRequest.from_json(record["request"])
    tools = None
    if request.tools is not None and request.sampling["grammar"] is not None:
        tools = Tools(request.tools, Grammar.from_json(request.sampling["grammar"]), record["one_function"])
    spoken = [Spoken(request.id, number, tools) for number in range(request.sampling["n"])]
    for piece in answered.choices:
        spoken[piece.get("choice", 0)].hear(piece)
    for one in spoken:
        one.end(answered.finished["reason"])
    assert batch.version is not None
    created = int((batch.in_progress_at or batch.created_at).timestamp())
    fingerprint = f"fp_{batch.version.digest[:12] or batch.version.public_id}"
    return Answer(request=request.id, model=record["model"], fingerprint=fingerprint, created=created).completion(spoken, answered.finished)


def _kept(job: Job) -> dict[int, Answered]:
    """As many of its answers as can be read: what a worker made unreadable must not keep the rest from its owner."""
    found: dict[int, Answered] = {}
    try:
        for number, answered in answers_of(job):
            found.setdefault(number, answered)
    except (ArtifactRejected, *MALFORMED):
        log.exception("answers of a shard not read", job=job.public_id)
    return found


def answers_of(job: Job) -> Iterator[tuple[int, Answered]]:
    """What the segments of a shard hold, newest first: each leaves a blob that names the one before."""
    before: str | None = job.checkpoint or None
    for _segment in range(job.segment):
        if before is None:
            return
        head, *lines = _lines(before)
        yield from ((line["number"], Answered.from_json(line)) for line in lines)
        before = head["before"]


def _lines(sha256: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in artifacts.read_blob(sha256, max_bytes=MAX_BLOB_BYTES).splitlines()]


def _stored(file: BinaryIO) -> tuple[str, int] | None:
    """Its sha256 and size in the artifact store; None for an empty one."""
    if not file.tell():
        return None
    file.seek(0)
    return artifacts.put_blob(file)


def _end(batch: Batch, written: _Written, files: Mapping[str, tuple[str, int] | None]) -> bool:
    """The results, what they cost and the end of the batch, all at once or not at all."""
    cost_micro = prices.cost(
        prompt_tokens=written.tokens["prompt_tokens"],
        completion_tokens=written.tokens["completion_tokens"],
        input_price_micro=batch.input_price_micro,
        output_price_micro=batch.output_price_micro,
    )
    ending = Batch.State.EXPIRED if written.expired else batch.ending
    with transaction.atomic():
        ended = Batch.objects.filter(pk=batch.pk, state=batch.state).update(
            state=ending,
            completed=written.completed,
            failed=written.failed,
            cost_micro=cost_micro,
            ended_at=timezone.now(),
            **written.tokens,
            **{name: _row(batch, name, stored) for name, stored in files.items()},
        )
        if not ended:
            transaction.set_rollback(True)
            return False
        _settle(batch, cost_micro, written)
        if batch.version is not None and written.completed:
            search.used(batch.version.listing_id, times=written.completed)
        sending.tell(batch, ending)
    return True


def _row(batch: Batch, name: str, stored: tuple[str, int] | None) -> UploadedFile | None:
    if stored is None:
        return None
    sha256, size_bytes = stored
    named = f"{batch.public_id}_{name.removesuffix('_file')}.jsonl"
    purpose = UploadedFile.Purpose.BATCH_OUTPUT
    return UploadedFile.objects.create(created_by=batch.user, purpose=purpose, name=named, sha256=sha256, size_bytes=size_bytes)


def _settle(batch: Batch, cost_micro: int, written: _Written) -> None:
    if not cost_micro:
        ledger.void(batch.cause)
        return
    prices_then = {"input_price_micro": batch.input_price_micro, "output_price_micro": batch.output_price_micro}
    detail = written.tokens | prices_then
    ledger.settle(batch.cause, amount_micro=cost_micro, version=batch.version, memo=f"{batch.name}: {batch.model}", detail=detail)
