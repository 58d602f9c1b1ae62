"""How an answer says that the version it comes from is deprecated: the header of RFC 9745, and where to read why."""

from __future__ import annotations

from django.conf import settings
from django.urls import reverse

from store.catalog.models import Version


def deprecation_headers(version: Version) -> dict[str, str]:
    """`deprecation: @<unix time>` with a link to the GPT's page; nothing for a version that is not deprecated."""
    if version.deprecated_at is None:
        return {}
    page = settings.SITE_URL + reverse("pages:listing", args=[version.listing.publisher.slug, version.listing.slug])
    return {"deprecation": f"@{int(version.deprecated_at.timestamp())}", "link": f'<{page}>; rel="deprecation"; type="text/html"'}
