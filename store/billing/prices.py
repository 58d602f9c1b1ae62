"""What a generation costs: integer micro-units, rounded up once per request and never per token.

Whatever builds on a base has the base compute every token, and weights that were trained from others hold what those had
learned. So a GPT costs what its own listing asks and what the listing of each of its ancestors asks, added up, each listing
once, and never less than its base. `store.billing.shares` divides a charge likewise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from store.accounts.models import Membership, User
from store.catalog.models import Listing, Version

PER_TOKENS = 1_000_000  # prices are for this many tokens
MICRO = 1_000_000  # micro-units in one unit of the currency


@dataclass(frozen=True)
class Price:
    """Of PER_TOKENS tokens that are read, and of as many that are written."""

    input_micro: int = 0
    output_micro: int = 0

    def __add__(self, other: Price) -> Price:
        return Price(self.input_micro + other.input_micro, self.output_micro + other.output_micro)

    @property
    def is_free(self) -> bool:
        return not (self.input_micro or self.output_micro)

    @property
    def is_even(self) -> bool:
        """Whether reading and writing cost the same."""
        return self.input_micro == self.output_micro


@dataclass(frozen=True)
class Due:
    """What one person pays for one version: together, and to which version of its lineage (by public id) how much."""

    price: Price = Price()
    parts: Mapping[str, Price] = field(default_factory=dict)


def asked(listing: Listing) -> Price:
    """What the listing itself asks, apart from what it builds on."""
    return Price(listing.input_price_micro, listing.output_price_micro)


def of_version(version: Version) -> Price:
    return _sum(listings_of(version.lineage()))


def of_listing(listing: Listing) -> Price:
    """What its unpinned name costs; before anything is released, what its newest version would."""
    version = listing.current_version or next(iter(listing.versions.all()), None)
    above = listings_of(version.lineage()[1:]) if version is not None else []
    return asked(listing) + _sum(one for one in above if one.pk != listing.pk)


def listings_of(versions: Iterable[Version]) -> list[Listing]:
    """Each once, in the order of the versions: weights that were trained from an earlier version of their own listing pay it once."""
    return list({version.listing_id: version.listing for version in versions}.values())


def _sum(listings: Iterable[Listing]) -> Price:
    return sum(map(asked, listings), Price())


def due(version: Version, person: User | None) -> Due:
    """What this person pays: nothing to a publisher they belong to, and nothing for what is not released.

    Its publisher so tries a draft for what its base costs; a reviewer who is no member of theirs tries it for nothing.
    """
    released = version.state == Version.State.RELEASED
    asking = [part for part in version.lineage() if released or part != version]
    nearest = {part.listing_id: part for part in reversed(asking)}
    parts = {part: asked(part.listing) for part in asking if nearest[part.listing_id] == part}
    parts = {part: price for part, price in parts.items() if not price.is_free}
    if parts and person is not None:
        own = set(Membership.objects.filter(user=person).values_list("publisher", flat=True))
        if not released and person.is_reviewer and version.listing.publisher_id not in own:
            return Due()
        parts = {part: price for part, price in parts.items() if part.listing.publisher_id not in own}
    return Due(sum(parts.values(), Price()), {part.public_id: price for part, price in parts.items()})


def cost(*, prompt_tokens: int, completion_tokens: int, input_price_micro: int, output_price_micro: int) -> int:
    """The cost in micro-units of these tokens at these prices per million."""
    return -(-(prompt_tokens * input_price_micro + completion_tokens * output_price_micro) // PER_TOKENS)


def most_it_can_cost(price: Price, *, prompt_tokens: int, max_tokens: int) -> int:
    """What to reserve before a generation: its prompt, and an answer as long as it may become."""
    prices = {"input_price_micro": price.input_micro, "output_price_micro": price.output_micro}
    return cost(prompt_tokens=prompt_tokens, completion_tokens=max_tokens, **prices)


def micro(amount: Decimal) -> int:
    """An amount that a person wrote, in micro-units; what is smaller than one is cut off."""
    return int(amount * MICRO)
