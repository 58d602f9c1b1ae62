"""What an answer took: the line of numbers beneath it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _

from inference.protocol import FinishReason
from store.billing import prices
from store.generation import failures
from store.generation.models import Request


@dataclass(frozen=True)
class Meter:
    """`cost_micro` is None where the GPT is free; `trouble` says why there is no whole answer, "" when there is."""

    tokens: int
    tokens_per_s: float | None
    first_token_ms: float | None
    cost_micro: int | None
    trouble: str = ""
    stopped: bool = False
    cut: bool = False


def of_request(request: Request) -> Meter:
    """The meter of a request that has ended."""
    if request.state == Request.State.VOIDED:
        return Meter(0, None, None, None, trouble=_("The answer was lost on its way. Nothing was charged; ask again."))
    return Meter(
        tokens=request.completion_tokens,
        tokens_per_s=_rate(request.completion_tokens, request.first_token_ms, request.duration_ms),
        first_token_ms=request.first_token_ms,
        cost_micro=request.cost_micro if _is_priced(request) else None,
        trouble=failures.sentence({"reason": request.finish_reason, "failure": request.failure}) if request.finish_reason else "",
        stopped=request.finish_reason == FinishReason.CANCELLED,
        cut=request.finish_reason == FinishReason.LENGTH,
    )


def of_event(finished: Mapping[str, Any], request: Request) -> Meter:
    """The meter of a finished event, before its settlement; the prices are those agreed on."""
    tokens = int(finished["usage"].get("completion_tokens", 0))
    cost_micro = None
    if _is_priced(request):
        cost_micro = prices.cost(
            prompt_tokens=int(finished["usage"].get("prompt_tokens", 0)),
            completion_tokens=tokens,
            input_price_micro=request.input_price_micro,
            output_price_micro=request.output_price_micro,
        )
    trouble = failures.sentence(finished)
    return Meter(
        tokens=tokens,
        tokens_per_s=_rate(tokens, finished.get("first_token_ms"), finished.get("duration_ms")),
        first_token_ms=finished.get("first_token_ms"),
        cost_micro=0 if trouble and cost_micro is not None else cost_micro,
        trouble=trouble,
        stopped=finished["reason"] == FinishReason.CANCELLED,
        cut=finished["reason"] == FinishReason.LENGTH,
    )


def _is_priced(request: Request) -> bool:
    return bool(request.input_price_micro or request.output_price_micro)


def _rate(tokens: int, first_ms: float | None, duration_ms: float | None) -> float | None:
    """Tokens a second after the first one."""
    if tokens < 2 or first_ms is None or not duration_ms or duration_ms <= first_ms:
        return None
    return (tokens - 1) * 1000 / (duration_ms - first_ms)
