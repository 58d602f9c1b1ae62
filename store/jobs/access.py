"""Who enters the pages of jobs: members of the publisher, and for acts those whose role allows them."""

from __future__ import annotations

from django.http import HttpRequest

from store.accounts.models import Membership, Publisher, User
from store.accounts.publishers import require_role
from store.errors import NotFound

ACTORS = (Membership.Role.OWNER, Membership.Role.MAINTAINER)


def person(request: HttpRequest) -> User:
    assert isinstance(request.user, User)  # every page here asks for a signed-in person
    return request.user


def publisher_of(request: HttpRequest, slug: str, *roles: str) -> Publisher:
    found = Publisher.objects.filter(slug=slug).first()
    if found is None:
        raise NotFound
    require_role(request.user, found, *roles)
    return found
