"""Which votes do not count: an answer gave a name away, a question was asked before, one person said enough of one GPT, or many
alike came in a short time.

A vote that is doubted stays where it is, with the reason, and is left out of the ratings; its voter is told.
"""

from __future__ import annotations

import re
from collections import Counter
from datetime import timedelta

from django.db.models import Q, QuerySet

from store.catalog.models import Version
from store.playground.models import Battle

Doubt = Battle.Doubt
SHORTEST_NAME = 4  # characters; a shorter one stands in answers by chance
BURST_VOTES, BURST_WINDOW = 10, timedelta(hours=1)  # for one GPT, by
NEW_ACCOUNT = timedelta(days=1)  # accounts that are no older
VOTES_PER_VERSION = 5  # that count of one person's: a rating is not to be one person's opinion, however long they go on
HASTY_VOTES, HASTY_WINDOW = 20, timedelta(minutes=10)  # of one person, who can't have read so much


def gives_a_name_away(battle: Battle) -> bool:
    """Whether one of the answers holds the name of one of both GPTs or of its publisher, in letters of any size."""
    said = f"{battle.answer_a}\n{battle.answer_b}"
    names = {name for version in (battle.version_a, battle.version_b) for name in _names(version)}
    return any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", said, re.IGNORECASE) for name in names)


def _names(version: Version) -> set[str]:
    listing, publisher = version.listing, version.listing.publisher
    texts = listing.live_revision.texts.all() if listing.live_revision else ()
    names = {listing.full_name, publisher.name, *(text.name for text in texts)}
    return {name for name in names if len(name) >= SHORTEST_NAME}


def look_at(battle: Battle) -> None:
    """Doubts the vote, and those that it makes doubtful. Call it behind its commit: of votes at once, the last sees all."""
    if not battle.doubt and _before(battle).exists():
        _doubt(Battle.objects.filter(pk=battle.pk), Doubt.REPEATED)
    if used_up(battle.user_id, but=battle) & {battle.version_a_id, battle.version_b_id}:
        _doubt(Battle.objects.filter(pk=battle.pk), Doubt.ENOUGH)
    hasty = _voted(battle, HASTY_WINDOW).filter(user=battle.user_id)
    if hasty.count() >= HASTY_VOTES:
        _doubt(hasty, Doubt.BURST)
    burst = _burst(battle)
    if burst.count() >= BURST_VOTES:
        _doubt(burst, Doubt.BURST)


def used_up(user_id: int, *, but: Battle | None = None) -> set[int]:
    """The versions on which as many votes of this person count, `but` one left out, as can."""
    votes = Battle.objects.filter(user=user_id, doubt="").exclude(vote="")
    votes = votes.exclude(pk=but.pk) if but else votes
    counted = Counter(version for pair in votes.values_list("version_a", "version_b") for version in pair)
    return {version for version, number in counted.items() if number >= VOTES_PER_VERSION}


def _before(battle: Battle) -> QuerySet[Battle]:
    """Earlier votes on the same question to the same two: by the same person, or by anybody where it is too long for chance."""
    pair = [battle.version_a_id, battle.version_b_id]
    same = Q(user=battle.user_id, text=battle.text)
    if battle.fingerprint:
        same |= Q(fingerprint=battle.fingerprint)
    earlier = Q(voted_at__lt=battle.voted_at) | Q(voted_at=battle.voted_at, pk__lt=battle.pk)
    return Battle.objects.exclude(vote="").filter(same, earlier, version_a__in=pair, version_b__in=pair)


def _burst(battle: Battle) -> QuerySet[Battle]:
    """Votes for the same winner by new accounts, this one among them; none for an old account or no winner."""
    assert battle.voted_at is not None
    winner = battle.winner_id
    for_it = Q(version_a=winner, vote=Battle.Vote.A) | Q(version_b=winner, vote=Battle.Vote.B)
    near = _voted(battle, BURST_WINDOW).filter(for_it, user__date_joined__gt=battle.voted_at - NEW_ACCOUNT)
    return near if winner is not None and near.filter(pk=battle.pk).exists() else near.none()


def _voted(battle: Battle, window: timedelta) -> QuerySet[Battle]:
    """Votes in the window that ends with this one."""
    assert battle.voted_at is not None
    return Battle.objects.exclude(vote="").filter(voted_at__gt=battle.voted_at - window, voted_at__lte=battle.voted_at)


def _doubt(battles: QuerySet[Battle], why: Battle.Doubt) -> None:
    battles.filter(doubt="").update(doubt=why)
