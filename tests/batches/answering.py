"""A batch in the tests: its file, and what the store's worker and a worker that generates do about it, each by one call."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable
from typing import Any

from inference.protocol import (
    Answered,
    Claim,
    Delta,
    FailureCode,
    Finished,
    FinishReason,
    GenerationRequest,
    Outcome,
    Segment,
    Usage,
    Verdict,
)
from store.accounts.models import User
from store.batches import preparing, results, starting
from store.batches.models import Batch
from store.catalog import artifacts
from store.catalog.models import Version
from store.jobs import claims, files
from store.jobs.models import Job

Says = Callable[[int, GenerationRequest], Answered]


def line_of(custom_id: str, model: str, content: str = "Hello", **body: Any) -> dict[str, Any]:
    asked = {"model": model, "messages": [{"role": "user", "content": content}], "max_tokens": 8} | body
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": asked}


def file_of(lines: Iterable[dict[str, Any] | bytes]) -> bytes:
    return b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)


def start(user: User, lines: Iterable[dict[str, Any] | bytes], name: str = "requests.jsonl") -> Batch:
    """A batch whose file has just been uploaded."""
    file = files.save(user, None, name=name, stream=io.BytesIO(file_of(lines)), purpose="batch")
    return starting.start(user, file.public_id)


def begun(user: User, version: Version, count: int = 3, **body: Any) -> Batch:
    """A batch of so many good requests that is being answered."""
    batch = start(
        user, [line_of(f"id-{number}", version.listing.full_name, f"Question {number}", **body) for number in range(1, count + 1)]
    )
    assert preparing.prepare(batch.public_id)
    return fresh(batch)


def fresh(batch: Batch) -> Batch:
    return Batch.objects.get(pk=batch.pk)


def says(number: int, request: GenerationRequest, text: str = "") -> Answered:
    """Five tokens read, two written."""
    choices = [
        Delta(text=text or f"Answer {number}", tokens=2, choice=choice, reason="stop").to_json() for choice in range(request.sampling["n"])
    ]
    usage = Usage(prompt_tokens=5, completion_tokens=2, cached_tokens=1).to_json()
    return Answered(number, choices, Finished(request=request.id, reason=FinishReason.STOP, usage=usage).to_json())


def fails(number: int, request: GenerationRequest, code: FailureCode = FailureCode.CONTEXT_LENGTH_EXCEEDED) -> Answered:
    finished = Finished(request=request.id, reason=FinishReason.ERROR, usage=Usage().to_json(), failure=code)
    return Answered(number, [], finished.to_json())


def jobs_of(batch: Batch) -> list[Job]:
    return list(batch.jobs.order_by("pk"))


def claim(job: Job, by: str = "worker") -> None:
    assert claims.claim(Claim(job=job.public_id, attempt=job.attempt, claim=by, worker=by)) is Verdict.GO_ON


def segment(job: Job, *, by: str = "worker", only: Iterable[int] | None = None, say: Says = says) -> Segment:
    """What a worker says when it has answered these lines of the shard, or all that no segment holds: its blob is stored."""
    job.refresh_from_db()
    answered = [say(number, request) for number, request in _unanswered(job) if only is None or number in only]
    lines = [{"before": job.checkpoint or None}, *(one.to_json() for one in answered)]
    checkpoint, _size = artifacts.put_blob(io.BytesIO("".join(json.dumps(line) + "\n" for line in lines).encode()))
    good = [one for one in answered if one.finished["reason"] in ("stop", "length")]
    counts = {"completed": len(good), "failed": len(answered) - len(good)}
    counts |= {name: sum(one.finished.get("usage", {}).get(name, 0) for one in good) for name in Usage().to_json()}
    return Segment(job=job.public_id, attempt=job.attempt, claim=by, number=job.segment, checkpoint=checkpoint, events=[counts], done=0.5)


def _unanswered(job: Job) -> list[tuple[int, GenerationRequest]]:
    known = {number for number, _answered in results.answers_of(job)}
    shard = [json.loads(line) for line in artifacts.read_blob(job.params["shard"], max_bytes=10**8).splitlines()]
    return [
        (line["number"], GenerationRequest.from_json(line["request"]))
        for line in shard
        if "request" in line and line["number"] not in known
    ]


def answer(job: Job, *, say: Says = says, by: str = "worker") -> None:
    """The whole shard, from claim to outcome."""
    claim(job, by)
    assert claims.segment(segment(job, by=by, say=say)) is Verdict.GO_ON
    assert claims.finished(Outcome(job=job.public_id, attempt=job.attempt, claim=by))


def answer_all(batch: Batch, *, say: Says = says) -> Batch:
    """Every shard as its turn comes, and then the results."""
    while jobs := [job for job in jobs_of(batch) if not job.has_ended]:
        answer(jobs[0], say=say)
    assert results.write_results(batch.public_id)
    return fresh(batch)


def output(batch: Batch) -> list[dict[str, Any]]:
    return _lines_of(batch.output_file)


def errors(batch: Batch) -> list[dict[str, Any]]:
    return _lines_of(batch.error_file)


def _lines_of(file: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in artifacts.read_blob(file.sha256, max_bytes=10**8).splitlines()] if file else []
