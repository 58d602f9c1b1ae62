"""What the pages show of a listing's ratings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db.models import QuerySet

from store.accounts.models import User
from store.catalog.models import Listing
from store.keyset import Page
from store.ratings import reading
from store.ratings.models import HelpfulVote, PastRating, Rating, RatingSummary
from store.ratings.rating import REPLYING, metered_requests

SHOWN = 5


@dataclass(frozen=True)
class Bar:
    stars: int
    count: int
    width: str  # of the longest possible bar, as an SVG length


def section(listing: Listing, user: Any) -> dict[str, Any]:
    """The context of `ratings/section.html`, under the one name `ratings`."""
    summary = summary_of(listing)
    role = listing.publisher.role_of(user)
    person = user if isinstance(user, User) else None
    page = reading.read(listing, reading.Question(), size=SHOWN) if summary.count else Page([], "")
    return {
        "ratings": {
            "listing": listing,
            "summary": summary,
            "distribution": distribution(summary),
            "page": page,
            "voted": voted(page.rows, person),
            "with_text": reading.visible(listing).exclude(text="").count() if summary.count else 0,
            "mine": mine(listing, person) if person else None,
            "may_rate": person is not None and role is None and metered_requests(person, listing).exists(),
            "may_reply": role in REPLYING,
            "may_vote": person is not None and role is None,
            "is_own": role is not None,
        }
    }


def summary_of(listing: Listing) -> RatingSummary:
    """The kept aggregate; an empty one that is not stored before the first rating."""
    return getattr(listing, "rating_summary", None) or RatingSummary(listing=listing)


def distribution(summary: RatingSummary) -> list[Bar]:
    """Five stars first."""
    counts = [(stars, getattr(summary, f"stars_{stars}")) for stars in range(5, 0, -1)]
    return [Bar(stars, count, f"{100 * count / summary.count:.1f}%" if summary.count else "0%") for stars, count in counts]


def mine(listing: Listing, person: User) -> Rating | None:
    """The person's rating, hidden or not, unless they withdrew it."""
    return Rating.objects.filter(listing=listing, user=person, withdrawn_at__isnull=True).first()


def history(rating: Rating) -> QuerySet[PastRating]:
    """What it said before, the newest first."""
    return rating.past.select_related("version")


def voted(rows: list[Rating], person: Any) -> set[int]:
    """The keys of those ratings that the person found helpful."""
    if not isinstance(person, User) or not rows:
        return set()
    return set(HelpfulVote.objects.filter(user=person, rating__in=rows).values_list("rating_id", flat=True))
