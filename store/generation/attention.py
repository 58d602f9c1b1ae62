"""How the tokens of a reader's sentence look at each other, asked of whoever holds a model.

It is no generation: nobody pays, and neither row nor sentence is kept. Its place in flight is given back when it has ended.
"""

from __future__ import annotations

import time
from typing import Any

import structlog
from asgiref.sync import sync_to_async
from django.utils.translation import gettext as _

from inference.protocol import MAX_ATTENDED_TOKENS, Attended, FailureCode, FinishReason, GenerationRequest
from inference.sampling_params import SamplingParams
from store import ratelimit
from store.accounts.public_ids import new_public_id
from store.catalog.models import Version
from store.errors import DomainError
from store.generation import admission, dispatch, failures, places, streams

WITHIN_S = 30  # a model that must be loaded first takes seconds
PER_MINUTE = 20  # of one network
MAX_CHARS = 240


class NotAttended(DomainError):
    """There are no weights to show; the message says why."""

    code = "not_attended"


def ask(version: Version, *, text: str, layer: int, head: int, network: str) -> GenerationRequest:
    """What is under way; `layer` and `head` count from 0. Raises TooMany and its kinds, NoWorker."""
    admission.require_worker()
    ratelimit.require(f"attention:{network}", limit=PER_MINUTE, per_s=60)
    base = version.weights()
    assert base.artifact is not None
    order = GenerationRequest(
        id=new_public_id("req"),
        base=base.artifact.digest,
        version=version.public_id,
        tenant=network,
        messages=[{"role": "user", "content": text}],
        sampling=SamplingParams(max_tokens=1).to_json(),
        deadline=time.time() + WITHIN_S,
        attention={"layer": layer, "head": head},
        trace=str(structlog.contextvars.get_contextvars().get("request_id", "")),
    )
    with places.taken_for(order):
        dispatch.send(order)
    return order


async def collect(order: GenerationRequest) -> Attended:
    """What came of it. Raises NotAttended."""
    found: dict[str, Any] | None = None
    try:
        async for _entry, event in streams.read(order.id):
            if event["type"] == "attended":
                found = event
            elif event["type"] == "finished" and (found is None or event["reason"] != FinishReason.STOP):
                raise NotAttended(_why(event))
    finally:
        await sync_to_async(places.give_back)(order.base, order.tenant, order.id)
    assert found is not None  # a stream ends with a finished event
    return Attended.from_json(found)


def _why(event: dict[str, Any]) -> str:
    """In the reader's language."""
    detail = event.get("detail") or {}
    if event.get("failure") == FailureCode.CONTEXT_LENGTH_EXCEEDED:
        values = {"tokens": detail.get("prompt_tokens"), "most": MAX_ATTENDED_TOKENS}
        return _("The sentence is %(tokens)s tokens for this model; the figure has room for %(most)s. Shorten it.") % values
    if event.get("failure") == FailureCode.INVALID_PARAMETER and "layers" in detail:
        return _("This model has %(layers)s layers of %(heads)s heads each. Choose among those.") % detail
    return failures.sentence(event) or str(failures.SENTENCES[FailureCode.INTERNAL][1])
