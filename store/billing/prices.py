"""What a generation costs: integer micro-units, rounded up once per request and never per token."""

from __future__ import annotations

from decimal import Decimal

from store.catalog.models import Listing

PER_TOKENS = 1_000_000  # prices are for this many tokens
MICRO = 1_000_000  # micro-units in one unit of the currency


def cost(*, prompt_tokens: int, completion_tokens: int, input_price_micro: int, output_price_micro: int) -> int:
    """The cost in micro-units of these tokens at these prices per million."""
    return -(-(prompt_tokens * input_price_micro + completion_tokens * output_price_micro) // PER_TOKENS)


def most_it_can_cost(listing: Listing, *, prompt_tokens: int, max_tokens: int) -> int:
    """What to reserve before a generation: its prompt, and an answer as long as it may become."""
    return cost(
        prompt_tokens=prompt_tokens,
        completion_tokens=max_tokens,
        input_price_micro=listing.input_price_micro,
        output_price_micro=listing.output_price_micro,
    )


def micro(amount: Decimal) -> int:
    """An amount that a person wrote, in micro-units; what is smaller than one is cut off."""
    return int(amount * MICRO)
