"""The arena's pages: ask two without names, read and vote, and the board that the votes make."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from asgiref.sync import async_to_sync
from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.db import connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import get_language
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from inference.protocol import Finished
from store.accounts.models import User
from store.catalog.models import Listing, UseCase, Version
from store.errors import NotFound
from store.generation import settlement, streams
from store.generation.errors import SignInNeeded
from store.generation.models import Request
from store.playground import meters
from store.playground.arena import battles, signs, standings
from store.playground.meters import Meter
from store.playground.models import Battle, Standing
from store.playground.views.edge import act, asking, wants_json

LATEST = 5
BEST = 5  # of the board, beside the question


@dataclass(frozen=True)
class Side:
    """One answer of a battle. `version`, its page and its rating are None until the vote."""

    label: str
    request: Request
    text: str
    meter: Meter | None  # None while it is being written
    is_chosen: bool = False
    version: Version | None = None
    is_reachable: bool = False
    standing: Standing | None = None


@never_cache
@require_safe
def arena(request: HttpRequest) -> HttpResponse:
    latest = Battle.objects.filter(user=request.user).order_by("-id")[:LATEST] if isinstance(request.user, User) else []
    context = {
        "use_cases": UseCase.objects.order_by("position", "slug"),
        "chosen": request.GET.get("use_case", ""),
        "text": request.GET.get("text", "")[: settings.MAX_PROMPT_CHARS],
        "latest": latest,
        "best": standings.board().places[:BEST],
    }
    return render(request, "playground/arena.html", context)


@asking
def start(request: HttpRequest) -> HttpResponse:
    if not isinstance(request.user, User):
        raise SignInNeeded(_("Voting takes an account, so that one person has one voice. It costs nothing."))
    language = (get_language() or "en").partition("-")[0]
    asked = {"text": request.POST.get("text", ""), "use_case": request.POST.get("use_case", ""), "language": language}
    battle = battles.begin(request.user, **asked)
    url = reverse("playground:battle", args=[battle.public_id])
    if wants_json(request):
        return JsonResponse({"url": url})
    _wait_for(battle)
    return redirect(url)


def _wait_for(battle: Battle) -> None:
    """Without a script, the page comes when both answers are there."""
    if not connection.in_atomic_block:
        connection.close()
    for event in async_to_sync(_both)(battle):
        settlement.finish(Finished.from_json(event))


async def _both(battle: Battle) -> list[dict[str, Any]]:
    """The ends of both, read at the same time: what nobody reads is given up."""
    ends = await asyncio.gather(*(streams.collect(request.public_id) for request in (battle.request_a, battle.request_b)))
    return [event for _text, event in ends]


@never_cache
@login_required
@require_safe
def battle(request: HttpRequest, public_id: str) -> HttpResponse:
    assert isinstance(request.user, User)
    found = battles.find(public_id, request.user)
    context = {
        "battle": found,
        "sides": _sides(found, request.user),
        "is_under_way": battles.is_under_way(found),
        "is_complete": battles.is_complete(found),
        "votes": Battle.Vote.choices,
    }
    return render(request, "playground/battle.html", context)


def _sides(battle: Battle, user: User) -> list[Side]:
    """Left and right. Who they are is not even loaded into the page before the vote."""
    shown = ("A", battle.request_a, battle.answer_a, battle.version_a), ("B", battle.request_b, battle.answer_b, battle.version_b)
    if not battle.vote:
        return [Side(label, asked, text, _meter(asked)) for label, asked, text, _version in shown]
    reachable = set(
        Listing.objects.reachable_by(user).filter(pk__in=[version.listing_id for *_, version in shown]).values_list("pk", flat=True)
    )
    rated = {
        row.version_id: row
        for row in Standing.objects.filter(use_case=None, version__in=[version for *_, version in shown]).order_by("tally")
    }
    return [
        Side(
            label,
            asked,
            text,
            _meter(asked),
            is_chosen=battle.winner_id == version.pk,
            version=version,
            is_reachable=version.listing_id in reachable,
            standing=rated.get(version.pk),
        )
        for label, asked, text, version in shown
    ]


def _meter(asked: Request) -> Meter | None:
    return None if asked.state == Request.State.ADMITTED else meters.of_request(asked)


@act
def vote(request: HttpRequest, public_id: str) -> HttpResponse:
    if not isinstance(request.user, User):
        raise NotFound
    battles.vote(battles.find(public_id, request.user), choice=request.POST.get("vote", ""))
    return redirect("playground:battle", public_id)


@require_safe
def board(request: HttpRequest) -> HttpResponse:
    """The ratings, over all votes or those of one use case."""
    use_cases = list(UseCase.objects.filter(pk__in=Standing.objects.values("use_case")).order_by("position", "slug"))
    asked = request.GET.get("use_case", "")
    chosen = next((use_case for use_case in use_cases if use_case.slug == asked), None)
    context = {
        "use_cases": use_cases,
        "chosen": chosen,
        "unknown": bool(asked) and chosen is None,
        "board": standings.board(chosen),
        "fewest": standings.FEWEST_VOTES,
        "most": signs.VOTES_PER_VERSION,
    }
    return render(request, "playground/arena_board.html", context)
