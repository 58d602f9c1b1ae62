"""The acts of the arena: ask two GPTs that the store chooses, and say which answered better."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import redis.exceptions
from django.conf import settings
from django.db import transaction
from django.utils import timezone

from inference.protocol import FailureCode, Finished
from store import ratelimit
from store.accounts.models import Membership, User
from store.catalog.models import UseCase
from store.errors import AWAY, DomainError, NotFound
from store.generation import settlement, streams
from store.generation.admission import admit
from store.generation.errors import NoWorker
from store.generation.models import Request
from store.playground import conversations
from store.playground.arena import pairing, signs
from store.playground.errors import AlreadyVoted, BadVote, NotComplete, OwnBattle
from store.playground.models import Battle
from store.ratings.text import fingerprint

DAY_S = 86_400


def find(public_id: str, user: User) -> Battle:
    """One's own. Raises NotFound for a stranger's."""
    related = ("use_case", "request_a", "request_b", *(f"version_{side}__listing__publisher" for side in "ab"))
    battle = Battle.objects.filter(public_id=public_id, user=user).select_related(*related).first()
    if battle is None:
        raise NotFound
    return battle


def begin(user: User, *, text: str, use_case: str = "", language: str = "en") -> Battle:
    """A battle whose two answers are now being written.

    Raises NoContenders, and whatever `admit` raises; then nothing is begun and the person's day has a battle more.
    """
    text = conversations.checked(text)
    allowance: dict[str, Any] = {"key": f"arena:{user.pk}", "limit": settings.ARENA_BATTLES_PER_DAY, "per_s": DAY_S}
    ratelimit.require(**allowance)
    try:
        return _begin(user, text, UseCase.objects.filter(slug=use_case).first(), language)
    except (DomainError, *AWAY):
        with suppress(redis.exceptions.RedisError):
            ratelimit.give_back(**allowance)
        raise


def _begin(user: User, text: str, use_case: UseCase | None, language: str) -> Battle:
    version_a, version_b = pairing.choose(user, use_case=use_case, language=language)
    battle = Battle(user=user, use_case=use_case, text=text, fingerprint=fingerprint(text), version_a=version_a, version_b=version_b)
    asked: dict[str, Any] = {"messages": [{"role": "user", "content": text}], "sampling": {}, "user": user, "source": Request.Source.ARENA}
    try:
        with transaction.atomic():
            battle.request_a, battle.request_b = admit(version_a, **asked), admit(version_b, **asked)
            battle.save()
    except NoWorker:
        if battle.pk is not None:  # committed, and one of both not sent
            _call_off(battle)
        raise
    return battle


def _call_off(battle: Battle) -> None:
    """Ends both requests, whichever of them was sent, and forgets the battle."""
    for request in (battle.request_a, battle.request_b):
        with suppress(redis.exceptions.RedisError):
            conversations.stop(request)
        settlement.finish_for_good(settlement.unanswered(request.public_id, attempt=1, failure=FailureCode.NO_WORKER))
    Battle.objects.filter(public_id=battle.public_id).delete()


def keep(request: Request, finished: Finished) -> None:
    """Stores what was said; called in the transaction that ends a request."""
    if request.source == Request.Source.ARENA:
        text = streams.text_so_far(request.public_id)
        if not Battle.objects.filter(request_a=request).update(answer_a=text):
            Battle.objects.filter(request_b=request).update(answer_b=text)


def is_complete(battle: Battle) -> bool:
    """Whether both answers came to their own end, with tokens counted."""
    return all(
        request.state == Request.State.FINISHED and request.completion_tokens > 0 for request in (battle.request_a, battle.request_b)
    )


def is_under_way(battle: Battle) -> bool:
    return any(
        request.state == Request.State.ADMITTED and request.deadline_at > timezone.now() for request in (battle.request_a, battle.request_b)
    )


def vote(battle: Battle, *, choice: str) -> None:
    """The one vote of who began the battle. Raises BadVote, OwnBattle, NotComplete and AlreadyVoted."""
    if choice not in Battle.Vote.values:
        raise BadVote(param="vote")
    publishers = [battle.version_a.listing.publisher_id, battle.version_b.listing.publisher_id]
    if Membership.objects.filter(user=battle.user_id, publisher__in=publishers).exists():
        raise OwnBattle
    if not is_complete(battle):
        raise NotComplete
    doubt = Battle.Doubt.NAMED if signs.gives_a_name_away(battle) else ""
    fields = {"vote": choice, "voted_at": timezone.now(), "doubt": doubt}
    if not Battle.objects.filter(pk=battle.pk, vote="").update(**fields):
        raise AlreadyVoted
    for name, value in fields.items():
        setattr(battle, name, value)
    signs.look_at(battle)
