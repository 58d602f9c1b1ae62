"""Pages of a long list by position, not by number: page 1,000 costs what page 1 costs, and nothing is shown twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db.models import QuerySet


@dataclass(frozen=True)
class Page:
    rows: list[Any]
    before: str  # public id to ask for the next page with; "" on the last one


def newest_first(rows: QuerySet[Any], *, before: str = "", size: int = 25) -> Page:
    """The newest `size` rows older than the row whose public id is `before`; an unknown `before` begins at the top."""
    if before and (last := rows.model._default_manager.filter(public_id=before).values_list("pk", flat=True).first()):
        rows = rows.filter(pk__lt=last)
    found = list(rows.order_by("-pk")[: size + 1])
    return Page(rows=found[:size], before=found[size - 1].public_id if len(found) > size else "")
