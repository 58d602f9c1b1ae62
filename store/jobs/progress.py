"""A job's live progress for whoever watches: a Valkey stream that may be lost. The row and its segments are the record."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import redis
import structlog
from asgiref.sync import sync_to_async
from django.db import connection

from inference.protocol import STREAM_TTL_S, progress_key
from store.jobs.models import Job
from store.valkey import async_client, client

BLOCK_MS = 5000
KEPT = 2000


def announce(job: str, kind: str) -> None:
    """Tells who is watching that something happened to the job. Losing it is no failure."""
    try:
        client().xadd(progress_key(job), {"event": json.dumps({"type": "state", "kind": kind})}, maxlen=KEPT, approximate=True)
        client().expire(progress_key(job), STREAM_TTL_S)
    except redis.RedisError as error:
        structlog.get_logger(__name__).warning("progress not announced", job=job, error=str(error))


async def follow(job: str, *, after: str = "$") -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Yields (entry id, event) as things happen, and ("", {"type": "idle"}) every few seconds; ends when the job has ended."""
    valkey, last = async_client(), after
    if await _has_ended(job):
        return
    while True:
        found: Any = await valkey.xread({progress_key(job): last}, block=BLOCK_MS, count=100)
        if not found:
            if await _has_ended(job):
                return
            yield "", {"type": "idle"}
            continue
        for entry, fields in found[0][1]:
            last = entry
            event = json.loads(fields["event"])
            yield entry, event
            if event["type"] == "state" and await _has_ended(job):
                return


@sync_to_async
def _has_ended(job: str) -> bool:
    try:
        state = Job.objects.filter(public_id=job).values_list("state", flat=True).first()
        return state is None or state in Job.ENDED
    finally:
        if not connection.in_atomic_block:
            connection.close()


def recent(job: str) -> tuple[str, list[dict[str, Any]]]:
    """(id of the last entry, the events that can still be read): what a page shows before it begins to follow."""
    try:
        entries: Any = client().xrevrange(progress_key(job), count=KEPT)
    except redis.RedisError as error:
        structlog.get_logger(__name__).warning("progress not read", job=job, error=str(error))
        return "0", []
    if not entries:
        return "0", []
    return entries[0][0], [json.loads(fields["event"]) for _, fields in reversed(entries)]
