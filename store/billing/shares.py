"""Who gets what of a charge.

A charge consists of what each GPT of a lineage asked (`store.billing.prices`). Each part is divided as if that GPT alone
had been used: the store takes its percentage first; of what is left each other publisher of a GPT it was built on gets
theirs, once and the root first, and its own publisher the rest. So a base earns by what builds on it at least what it
earns by itself, and nobody takes what is another's by putting a chain of listings of their own between them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

from django.conf import settings

from store.billing.models import Entry
from store.catalog.models import Version

PERCENT = 100
EXACT = PERCENT * PERCENT  # parts of a micro-unit in which every share is a whole number

Asks = Mapping[str, Sequence[int]]  # public id of a version → what it asks for a million tokens: [input, output], micro-units


@dataclass(frozen=True)
class Share:
    """`version` is whose share it is; of the store's share, what was used."""

    amount_micro: int
    reason: Entry.Reason
    version: Version


def divide(amount_micro: int, version: Version, *, asks: Asks, tokens: Mapping[str, Any]) -> list[Share]:
    """The shares of what was charged for a use of `version`; they sum to `amount_micro`.

    `tokens` holds "prompt_tokens" and "completion_tokens". Where nothing was asked by name, all of it is the version's own.
    What anybody gets is rounded down once, however many parts it comes of, and the remainder goes to the nearest that asked.
    """
    lineage = [version, *(row.ancestor for row in version.ancestry.select_related("ancestor__listing__publisher"))]
    parts = _parts(amount_micro, lineage, asks, tokens)
    of_store, exact = 0, [0] * len(lineage)  # in EXACT parts
    for place, part_micro in enumerate(parts):
        left = rest = part_micro * PERCENT * (PERCENT - settings.PLATFORM_SHARE_PERCENT)
        of_store += part_micro * EXACT - left
        for above in _beneath(lineage, place):
            share = min(left * settings.ANCESTOR_SHARE_PERCENT // PERCENT, rest)
            rest -= share
            exact[above] += share
        exact[place] += rest
    store_micro, earned = of_store // EXACT, [share // EXACT for share in exact]
    nearest = next((place for place, part_micro in enumerate(parts) if part_micro), 0)
    earned[nearest] += amount_micro - store_micro - sum(earned)
    return [
        Share(store_micro, Entry.Reason.PLATFORM_SHARE, version),
        *(Share(micro, Entry.Reason.ANCESTOR_SHARE, above) for micro, above in zip(earned[1:], lineage[1:], strict=True)),
        Share(earned[0], Entry.Reason.LISTING_SHARE, version),
    ]


def _beneath(lineage: Sequence[Version], place: int) -> list[int]:
    """Where those stand in the lineage that earn by what the one at `place` asked: the others' publishers, each once, the root first.

    A publisher's share is that of their listing nearest to the root, and of its version that is nearest to the one at `place`. So
    nobody earns more by training versions of a listing from each other, or listings of theirs, and no chain leaves nothing to a root.
    """
    nearest = {lineage[above].listing_id: above for above in reversed(range(place, len(lineage)))}
    found: dict[int, int] = {}
    for above in sorted(nearest.values(), reverse=True):
        found.setdefault(lineage[above].listing.publisher_id, above)
    found.pop(lineage[place].listing.publisher_id, None)
    return list(found.values())


def _parts(amount_micro: int, lineage: Sequence[Version], asks: Asks, tokens: Mapping[str, Any]) -> list[int]:
    """The amount divided among the lineage in proportion to what each asked for these tokens, exactly."""
    read, written = tokens.get("prompt_tokens", 0), tokens.get("completion_tokens", 0)
    prices = [asks.get(version.public_id, (0, 0)) for version in lineage]
    weights = [read * input_micro + written * output_micro for input_micro, output_micro in prices]
    whole = sum(weights)
    if not whole:
        return [amount_micro] + [0] * (len(lineage) - 1)
    return [upper - lower for lower, upper in pairwise(amount_micro * reached // whole for reached in accumulate(weights, initial=0))]
