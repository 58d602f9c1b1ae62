"""Lists of /v1 as the OpenAI clients page through them: `after` the last id they have, at most `limit` entries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from django.db.models import QuerySet
from django.utils.translation import gettext as _
from drf_spectacular.utils import OpenApiParameter

from store.api.errors import InvalidValue

LIMIT = 20
MOST = 100
PARAMETERS = [OpenApiParameter("after", str), OpenApiParameter("limit", int, description=f"1 … {MOST}")]


def page_of(
    rows: QuerySet[Any], query: Mapping[str, Any], shown: Callable[[Any], dict[str, Any]], *, default: int = LIMIT
) -> dict[str, Any]:
    """The part of the rows that was asked for, newest first. Raises InvalidValue."""
    limit = _limit(query.get("limit", default))
    oldest_first = query.get("order", "desc") == "asc"
    if after := query.get("after"):
        last = rows.filter(public_id=after).values_list("pk", flat=True).first()
        if last is None:
            raise InvalidValue(_("There is nothing by the id '%(param)s' to go on after.") % {"param": after[:60]}, param="after")
        rows = rows.filter(pk__gt=last) if oldest_first else rows.filter(pk__lt=last)
    found = list(rows.order_by("pk" if oldest_first else "-pk")[: limit + 1])
    data = [shown(row) for row in found[:limit]]
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
    return {"object": "list", "data": data, **ends, "has_more": len(found) > limit}


def _limit(value: Any) -> int:
    if not str(value).isdecimal() or not 1 <= int(value) <= 10_000:
        raise InvalidValue(
            _("'%(param)s' must lie between %(low)s and %(high)s.") % {"param": "limit", "low": 1, "high": MOST}, param="limit"
        )
    return min(int(value), MOST)
