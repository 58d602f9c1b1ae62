"""Two to four GPTs side by side: the same text answered by all at once, above what each of them is and costs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from store.billing import access, prices
from store.catalog import naming
from store.catalog.errors import VersionWithdrawn
from store.catalog.models import Listing, Version

MOST = 4
OFFERED = 100


@dataclass(frozen=True)
class Side:
    version: Version
    name: str  # as it was asked for
    due: prices.Due
    root: Version  # whose weights answer
    without: str  # the address of the page without this one


@never_cache
@require_safe
def compare(request: HttpRequest) -> HttpResponse:
    """`gpt` names each, as the API would: with @ and a number, members compare drafts too."""
    names = list(dict.fromkeys(name.strip() for name in request.GET.getlist("gpt") if name.strip()))[:MOST]
    sides, unknown = [], []
    for name in names:
        try:
            version = naming.resolve(name, request.user)
        except (naming.UnknownModel, VersionWithdrawn):
            unknown.append(name[: naming.MAX_NAME_CHARS])
            continue
        person = request.user if request.user.is_authenticated else None
        without = _address(other for other in names if other != name)
        sides.append(Side(version, name, access.due(version, person)[0], version.weights(), without))
    context: dict[str, Any] = {
        "sides": sides,
        "unknown": unknown,
        "offered": _offered(names) if len(sides) < MOST else [],
        "must_sign_in": not request.user.is_authenticated and any(not side.due.price.is_free for side in sides),
        "starters": next((side.version.starters for side in sides if side.version.starters), []),
    }
    return render(request, "playground/compare.html", context)


def _address(names: Iterable[str]) -> str:
    return f"{reverse('playground:compare')}?{urlencode([('gpt', name) for name in names])}"


def _offered(names: list[str]) -> list[str]:
    """Names that can be added, most used first."""
    listed = Listing.objects.listed().select_related("publisher").order_by("-request_count", "id")[:OFFERED]
    return [listing.full_name for listing in listed if listing.full_name not in names]
