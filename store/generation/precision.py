"""In which numbers bases are served, as their engines say, and in words."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from typing import Any

import redis.exceptions
import structlog
from django.utils.translation import gettext_lazy as _

from inference.protocol import ALIVE_WITHIN_S, precision_key
from store.catalog.models import Version
from store.valkey import client

log = structlog.get_logger(__name__)

WORDS = {
    "float32": _("32-bit weights (float32)"),
    "bfloat16": _("16-bit weights (bfloat16)"),
    "int8": _("8-bit weights (int8)"),
    "vllm": _("the precision of a vLLM server"),
}


def of_bases(bases: Collection[str]) -> dict[str, list[str]]:
    """By digest, the dtypes in which a base is served now; while no engine holds it, the last one. Empty where none is known."""
    asked = list(dict.fromkeys(bases))
    pipeline: Any = client().pipeline(transaction=False)
    for base in asked:
        pipeline.zrevrange(precision_key(base), 0, -1, withscores=True)
    try:
        answers = pipeline.execute() if asked else []
    except redis.exceptions.RedisError as error:
        log.warning("precision not read", error=repr(error))
        return {base: [] for base in asked}
    since = time.time() - ALIVE_WITHIN_S
    return {
        base: [dtype for dtype, beat_at in known if beat_at >= since] or [dtype for dtype, _beat_at in known[:1]]
        for base, known in zip(asked, answers, strict=True)
    }


def of(version: Version) -> list[str]:
    """In which the weights are served that answer for this version."""
    artifact = version.weights().artifact
    return of_bases([artifact.digest])[artifact.digest] if artifact else []


def in_words(dtypes: Iterable[str]) -> list[Any]:
    return [WORDS.get(dtype, dtype) for dtype in dtypes]
