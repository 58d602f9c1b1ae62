"""Code that works as shown: the same request with each client, with this store's address and a listing's real id."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from store.catalog.models import Listing

LANGUAGES = {"python": "Python", "javascript": "JavaScript", "curl": "curl", "huggingface": "huggingface_hub"}


def tabs(request: HttpRequest, listing: Listing | None, *, model: str = "") -> dict[str, Any]:
    """The context of `pages/code/block.html`: which language was asked for, and what the snippet names."""
    chosen = request.GET.get("code", "")
    chosen = chosen if chosen in LANGUAGES else "python"
    return {
        "code": {
            "languages": LANGUAGES,
            "chosen": chosen,
            "template": f"pages/code/{chosen}.html",
            "base_url": request.build_absolute_uri("/v1"),
            "model": model or (listing.full_name if listing else ""),
        }
    }
