"""The kept aggregate of a listing's visible ratings: one UPDATE per change, right under any number of concurrent writers.

The Bayesian average is (C·m + sum of stars) / (C + count): every listing begins with C ratings of m stars, so that one
enthusiast does not outrank a hundred satisfied people. Without ratings it is 0.
"""

from __future__ import annotations

from typing import Any

from django.db.models import Case, F, FloatField, Value, When
from django.db.models.functions import Cast

from store.ratings.models import RatingSummary

PRIOR_STARS = 3.5  # m
PRIOR_COUNT = 5  # C


def bayesian(count: int, total: int) -> float:
    return (PRIOR_COUNT * PRIOR_STARS + total) / (PRIOR_COUNT + count) if count else 0.0


def apply(listing_id: int, *, before: int | None, after: int | None) -> None:
    """A visible rating changed from `before` to `after` stars; None where there is, or was, none.

    Call it in the transaction of the change itself, after the row of the rating was locked or written.
    """
    if before == after:
        return
    RatingSummary.objects.get_or_create(listing_id=listing_id)
    count = F("count") + int(after is not None) - int(before is not None)
    total = F("total") + (after or 0) - (before or 0)
    mean: Any = Cast(PRIOR_COUNT * PRIOR_STARS + total, FloatField()) / Cast(PRIOR_COUNT + count, FloatField())
    changed: dict[str, Any] = {"count": count, "total": total}
    if before is not None:
        changed[f"stars_{before}"] = F(f"stars_{before}") - 1
    if after is not None:
        changed[f"stars_{after}"] = F(f"stars_{after}") + 1
    if after is None:  # perhaps the last one
        mean = Case(When(count=1, then=Value(0.0)), default=mean, output_field=FloatField())
    changed["bayesian"] = mean
    RatingSummary.objects.filter(listing_id=listing_id).update(**changed)
