"""What a search field offers while somebody types. Without a script the field is a plain form, and nobody asks for this."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, JsonResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from store.catalog.search.suggesting import suggest as suggested

KEPT_S = 60  # by the browser: typing back and forth asks once


@require_safe
def suggest(request: HttpRequest) -> JsonResponse:
    """`{"suggestions": [{"label", "note", "url"}, …]}` for the text `q`, use cases first."""
    found = suggested(request.GET.get("q", "").replace("\x00", ""))
    explore = reverse("pages:explore")
    rows: list[dict[str, Any]] = [
        {"label": use_case.name, "note": _("use case"), "url": f"{explore}?use_case={use_case.slug}"} for use_case in found.use_cases
    ]
    rows += [
        {
            "label": listing.text().name,
            "note": listing.full_name,
            "url": reverse("pages:listing", args=[listing.publisher.slug, listing.slug]),
        }
        for listing in found.listings
    ]
    rows += [
        {"label": publisher.name, "note": _("publisher"), "url": reverse("pages:publisher", args=[publisher.slug])}
        for publisher in found.publishers
    ]
    response = JsonResponse({"suggestions": rows})
    response["Cache-Control"] = f"private, max-age={KEPT_S}"
    return response
