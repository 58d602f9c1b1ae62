"""A text's vector, computed by whoever holds a model: a generation without an answer, paid by what is read."""

from __future__ import annotations

from functools import partial
from typing import Unpack

import structlog

from inference.protocol import GenerationRequest
from inference.sampling_params import SamplingParams
from store.catalog.models import Version
from store.generation import messages as reading
from store.generation.admission import Who, admit_order
from store.generation.models import Request


def admit(version: Version, *, text: str, dimensions: int | None, **who: Unpack[Who]) -> Request:
    """The admitted request. The model reads the text alone: no template, no instructions of the version, its adapter but all the same.

    Raises what `admission.admit` raises.
    """
    return admit_order(version, partial(_ordered, text=text, dimensions=dimensions), **who)


def _ordered(version: Version, *, request: str, text: str, dimensions: int | None, tenant: str, deadline: float) -> GenerationRequest:
    base, adapter = version.weights(), version.adapter()
    assert base.artifact is not None
    return GenerationRequest(
        id=request,
        base=base.artifact.digest,
        version=version.public_id,
        tenant=tenant,
        messages=reading.checked([{"role": "user", "content": text}]),
        sampling=SamplingParams(max_tokens=1).to_json(),
        deadline=deadline,
        adapter=adapter.artifact.digest if adapter and adapter.artifact else None,
        embedding={"dimensions": dimensions},
        trace=str(structlog.contextvars.get_contextvars().get("request_id", "")),
    )
