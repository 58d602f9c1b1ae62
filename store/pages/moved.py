"""Old addresses of GPTs that another publisher has now: who asks there is sent on."""

from __future__ import annotations

from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.deprecation import MiddlewareMixin

from store.catalog import transfers
from store.catalog.models import Listing
from store.errors import NotFound


class MovedMiddleware(MiddlewareMixin):
    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Only where nothing was found, and only to what this person can reach: else the address would tell what there is."""
        match = request.resolver_match
        if not isinstance(exception, NotFound | Http404) or request.method not in ("GET", "HEAD") or match is None:
            return None
        named = {name: match.kwargs.get(name) for name in ("publisher", "slug")}
        if not all(named.values()) or (listing := transfers.moved(str(named["publisher"]), str(named["slug"]))) is None:
            return None
        if not Listing.objects.reachable_by(request.user).filter(pk=listing.pk).exists():
            return None
        url = reverse(match.view_name, kwargs=match.kwargs | {"publisher": listing.publisher.slug, "slug": listing.slug})
        query = request.META.get("QUERY_STRING", "")
        return HttpResponseRedirect(f"{url}?{query}" if query else url)
