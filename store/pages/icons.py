"""Icons by their digest: the same address is the same picture for ever, so nobody need ask for it twice."""

from __future__ import annotations

from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from store.catalog import artifacts
from store.catalog.errors import ArtifactRejected
from store.catalog.models import ListingRevision
from store.catalog.pictures import MAX_BYTES
from store.errors import NotFound


@require_safe
def icon(request: HttpRequest, digest: str) -> HttpResponse:
    """Nothing but icons is served here, whatever else is stored under a digest. Raises NotFound."""
    if not ListingRevision.objects.filter(Q(icon=digest) | Q(small_icon=digest)).exists():
        raise NotFound
    try:
        raw = artifacts.read_blob(digest, max_bytes=MAX_BYTES)
    except ArtifactRejected as error:
        raise NotFound from error
    headers = {"Cache-Control": "public, max-age=31536000, immutable", "ETag": f'"{digest}"', "X-Content-Type-Options": "nosniff"}
    return HttpResponse(raw, content_type="image/webp", headers=headers | {"Content-Security-Policy": "default-src 'none'; sandbox"})
