"""Lets a generation begin, or says why not: every check, the price, the place in flight, the row, and the order on commit."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any, Required, TypedDict, Unpack

import redis.exceptions
import structlog
from django.conf import settings
from django.db import transaction
from django.utils import timezone

from inference.protocol import ALIVE_WITHIN_S, GENERATION_WORKERS, FailureCode, GenerationRequest
from inference.sampling_params import SamplingParams
from store import ratelimit
from store.accounts.models import ApiKey, User
from store.accounts.public_ids import new_public_id
from store.billing import access, ledger, prices
from store.catalog.models import Version
from store.catalog.naming import UnknownModel
from store.errors import TooMany
from store.generation import dispatch, places, settlement
from store.generation import messages as reading
from store.generation.errors import NoWorker, SignInNeeded, TriesUsedUp
from store.generation.models import Request
from store.valkey import client


class Who(TypedDict, total=False):
    """Who asks, and where."""

    user: Required[User | Any]
    visitor: str
    api_key: ApiKey | None
    source: Required[Request.Source]


SETTLED_WITHIN = timedelta(minutes=15)  # after its deadline a reservation that nobody settled is void
DAY_S = 86_400


def admit(
    version: Version,
    *,
    messages: Any,
    sampling: SamplingParams | Mapping[str, Any],
    tools: list[dict[str, Any]] | None = None,
    **who: Unpack[Who],
) -> Request:
    """The admitted request, whose events can be read from now on. Nothing is written when it raises.

    tools: functions that the model is told of; that it may call them is up to the sampling's grammar.
    Raises UnknownModel, BadMessages, BadSampling, TooMany and its kinds, SignInNeeded, InsufficientCredit, NoWorker.
    """
    return admit_order(version, partial(ordered, messages=messages, sampling=sampling, tools=tools), **who)


def admit_order(
    version: Version,
    ordering: Callable[..., GenerationRequest],
    *,
    user: User | Any,
    visitor: str = "",
    api_key: ApiKey | None = None,
    source: Request.Source,
) -> Request:
    """As `admit`, for whatever `ordering` makes of the version and a request's public id, tenant and deadline."""
    person = user if isinstance(user, User) else None
    if not Version.objects.usable_by(user).filter(pk=version.pk).exists():
        raise UnknownModel(param="model")
    request_id, deadline = new_public_id("req"), time.time() + settings.GENERATION_TIMEOUT_S
    order = ordering(version, request=request_id, tenant=person.public_id if person else visitor, deadline=deadline)
    due, covering = access.due(version, person)
    if not due.price.is_free and person is None:
        raise SignInNeeded
    require_worker()
    with places.taken_for(order), transaction.atomic():
        _within_limits(person, visitor)  # behind the other refusals: what is not begun uses up no try
        if covering is not None:
            access.hold(covering)
        request = Request.objects.create(
            public_id=request_id,
            version=version,
            user=person,
            visitor="" if person else visitor,
            api_key=api_key,
            source=source,
            input_price_micro=due.price.input_micro,
            output_price_micro=due.price.output_micro,
            access=covering,
            deadline_at=timezone.now() + timedelta(seconds=settings.GENERATION_TIMEOUT_S),
        )
        if person and not due.price.is_free:
            _reserve(request, person, version, order, due)
        transaction.on_commit(partial(_begin, order))
    return request


def ordered(
    version: Version,
    *,
    request: str,
    messages: Any,
    sampling: SamplingParams | Mapping[str, Any],
    tools: list[dict[str, Any]] | None,
    tenant: str,
    deadline: float,
) -> GenerationRequest:
    """What an engine is asked for `request`, a public id. Raises BadMessages and BadSampling."""
    asked = reading.checked(messages, tools)
    params = reading.sampling_for(version, sampling)
    complete, own = reading.complete(version, asked)
    base, adapter = version.weights(), version.adapter()
    assert base.artifact is not None
    return GenerationRequest(
        id=request,
        base=base.artifact.digest,
        version=version.public_id,
        tenant=tenant,
        messages=complete,
        sampling=params.to_json(),
        deadline=deadline,
        adapter=adapter.artifact.digest if adapter and adapter.artifact else None,
        own_messages=own,
        tools=tools or None,
        trace=str(structlog.contextvars.get_contextvars().get("request_id", "")),
    )


def most_it_can_cost(version: Version, order: GenerationRequest, price: prices.Price) -> int:
    """In micro-units, whatever the model says."""
    read = reading.most_prompt_tokens(version, order.messages, order.tools)
    written = order.sampling["n"] * order.sampling["max_tokens"]
    return prices.most_it_can_cost(price, prompt_tokens=read, max_tokens=written)


def _within_limits(person: User | None, visitor: str) -> None:
    who = f"user:{person.pk}" if person else f"visitor:{visitor}"
    ratelimit.require(f"generation:{who}", limit=settings.REQUESTS_PER_MINUTE, per_s=60)
    if person is None:
        try:
            ratelimit.require(f"tries:{who}", limit=settings.VISITOR_TRIES_PER_DAY, per_s=DAY_S)
        except TooMany as error:
            raise TriesUsedUp(retry_after_s=error.retry_after_s) from error


def require_worker() -> None:
    """Raises NoWorker while nobody is there to generate."""
    if not client().zcount(GENERATION_WORKERS, time.time() - ALIVE_WITHIN_S, "+inf"):
        raise NoWorker


def _begin(order: GenerationRequest) -> None:
    """Sends what has just been committed. What cannot be sent ends here, as if no worker had been there. Raises NoWorker."""
    try:
        places.keep(order)
        dispatch.send(order)
    except (NoWorker, redis.exceptions.RedisError) as error:
        if dispatch.withdraw(order.id, attempt=order.attempt):
            settlement.finish_for_good(settlement.unanswered(order.id, attempt=order.attempt, failure=FailureCode.NO_WORKER))
            raise NoWorker from error


def _reserve(request: Request, person: User, version: Version, order: GenerationRequest, due: prices.Due) -> None:
    amount_micro = most_it_can_cost(version, order, due.price)
    expires_at = request.deadline_at + SETTLED_WITHIN
    ledger.reserve(person, cause=request.cause, amount_micro=amount_micro, expires_at=expires_at, parts=due.parts)
