"""Who may enter: members of the publisher, and for acts those whose role allows them."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_http_methods

from store.accounts import publishers
from store.accounts.models import Publisher, User
from store.catalog.models import Listing, Version
from store.errors import NotFound

form_view = require_http_methods(["GET", "HEAD", "POST"])


def person(request: HttpRequest) -> User:
    assert isinstance(request.user, User)  # every view here asks for a signed-in person
    return request.user


def own_publisher(request: HttpRequest, slug: str, *roles: str) -> Publisher:
    """The publisher, for its members only: a stranger learns nothing."""
    found = Publisher.objects.filter(slug=slug).first()
    if found is None:
        raise NotFound
    publishers.require_role(request.user, found, *roles)
    return found


def own_listing(request: HttpRequest, publisher: str, slug: str, *roles: str) -> Listing:
    owner = own_publisher(request, publisher, *roles)
    found = Listing.objects.for_cards().filter(publisher=owner, slug=slug).first()
    if found is None:
        raise NotFound
    return found


def version_of(listing: Listing, number: str) -> Version:
    found = listing.versions.filter(number=number).select_related("base", "listing__publisher").first()
    if found is None:
        raise NotFound
    return found


def to_dashboard(listing: Listing) -> HttpResponse:
    return redirect("pages:studio_listing", listing.publisher.slug, listing.slug)
