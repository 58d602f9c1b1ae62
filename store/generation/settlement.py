"""What becomes of a request: its usage recorded and its reservation settled or voided, once, whoever reports it and how often."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import structlog
from django.db import transaction
from django.utils import timezone

from inference.protocol import FailureCode, Finished, FinishReason, Usage
from store.billing import access as monthly
from store.billing import ledger, prices
from store.billing.models import Access
from store.catalog import search
from store.generation import dispatch, places
from store.generation.models import Request

log = structlog.get_logger(__name__)

GRACE = timedelta(seconds=30)  # after its deadline, for a settlement that is on its way
WORTH_ANOTHER_TRY = frozenset({FailureCode.ENGINE_DIED, FailureCode.NO_WORKER})
_STATES = {
    FinishReason.STOP: Request.State.FINISHED,
    FinishReason.LENGTH: Request.State.FINISHED,
    FinishReason.CANCELLED: Request.State.CANCELLED,
}

_on_finished: list[Callable[[Request, Finished], None]] = []


def on_finished(function: Callable[[Request, Finished], None]) -> None:
    """Calls `function` in the transaction that ends a request. For higher apps, in `AppConfig.ready`."""
    if function not in _on_finished:
        _on_finished.append(function)


def unanswered(request: str, *, attempt: int, failure: FailureCode | None = None, message: str = "") -> Finished:
    """The last event of what the store ends itself, and never charges: cancelled, or failed for the reason given."""
    reason = FinishReason.ERROR if failure else FinishReason.CANCELLED
    return Finished(request, reason, Usage().to_json(), attempt=attempt, failure=failure, message=message)


def finish(event: Finished) -> bool:
    """Ends the request that the event names; whether this call did it.

    An event of an attempt that has been given up changes nothing. What failed before a word was said is tried again.
    """
    if event.failure in WORTH_ANOTHER_TRY and dispatch.try_again(event.request, attempt=event.attempt):
        return False
    return finish_for_good(event)


def finish_for_good(event: Finished) -> bool:
    """As `finish`, and never tried again: for what the store itself ends."""
    request = Request.objects.select_related("version__listing", "user").filter(public_id=event.request).first()
    if request is None or event.attempt < request.attempt:
        log.info("settlement ignored", generation=event.request, attempt=event.attempt)
        return False
    state = _STATES.get(FinishReason(event.reason), Request.State.FAILED)
    usage = {name: int(event.usage.get(name, 0)) for name in ("prompt_tokens", "completion_tokens", "cached_tokens")}
    cost_micro = 0
    if state != Request.State.FAILED:
        cost_micro = prices.cost(
            prompt_tokens=usage["prompt_tokens"],
            completion_tokens=usage["completion_tokens"],
            input_price_micro=request.input_price_micro,
            output_price_micro=request.output_price_micro,
        )
    with transaction.atomic():
        ended = Request.objects.filter(pk=request.pk, state=Request.State.ADMITTED, attempt=event.attempt).update(
            state=state,
            finish_reason=event.reason,
            failure=event.failure or "",
            cost_micro=cost_micro,
            first_token_ms=event.first_token_ms,
            duration_ms=event.duration_ms,
            finished_at=timezone.now(),
            **usage,
        )
        if not ended:
            return False
        _settle(request, cost_micro, usage)
        if request.access_id is not None and state != Request.State.FAILED:
            monthly.count(request.access_id, usage["prompt_tokens"] + usage["completion_tokens"])
        if state == Request.State.FINISHED and request.source != Request.Source.ARENA:  # the store chose that one, not a person
            search.used(request.version.listing_id)
        request.refresh_from_db()
        for function in _on_finished:
            function(request, event)
        transaction.on_commit(lambda: _give_place_back(request))
    return True


def is_paid_by(access: Access) -> bool:
    """Whether an answer is under way that the access pays for."""
    return Request.objects.filter(access=access, state=Request.State.ADMITTED).exists()  # what is overdue is voided


def _settle(request: Request, cost_micro: int, usage: dict[str, int]) -> None:
    if cost_micro:
        version = request.version
        prices_then = {"input_price_micro": request.input_price_micro, "output_price_micro": request.output_price_micro}
        ledger.settle(request.cause, amount_micro=cost_micro, version=version, memo=version.full_name, detail=usage | prices_then)
    else:
        ledger.void(request.cause)


def _give_place_back(request: Request) -> None:
    artifact = request.version.weights().artifact
    if artifact is not None:
        places.give_back(artifact.digest, request.tenant, request.public_id)


def void_stale(limit: int = 500) -> int:
    """Voids up to `limit` requests whose settlement did not come in time: never charged. How many."""
    stale = Request.objects.filter(state=Request.State.ADMITTED, deadline_at__lt=timezone.now() - GRACE)
    return sum(_void(request) for request in stale.select_related("version__listing", "user").order_by("deadline_at")[:limit])


def _void(request: Request) -> bool:
    with transaction.atomic():
        voided = Request.objects.filter(pk=request.pk, state=Request.State.ADMITTED).update(
            state=Request.State.VOIDED, finished_at=timezone.now()
        )
        if voided:
            ledger.void(request.cause)
            transaction.on_commit(lambda: _give_place_back(request))
    return bool(voided)
