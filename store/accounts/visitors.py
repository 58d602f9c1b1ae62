"""A person without an account: a signed cookie that is set at their first act, never when they only look."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Network, ip_address

from django.conf import settings
from django.core import signing
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from store.accounts.public_ids import new_public_id

COOKIE = "visitor"
MAX_AGE_S = 365 * 24 * 3600
_SALT = "store.accounts.visitors"


def visitor_of(request: HttpRequest) -> str:
    """The visitor's id, or "" when this browser has none yet or its cookie was not signed by us."""
    begun: str = getattr(request, "_begun_visitor", "")
    return begun or _from_cookie(request)


def network_of(request: HttpRequest) -> str:
    """Where the request comes from, as far as a household or an office shares it: an IPv4 address, or the /64 of an IPv6 one."""
    try:
        address = ip_address(request.META.get("REMOTE_ADDR", ""))
    except ValueError:
        return ""  # it came over a socket that has no address
    if isinstance(address, IPv4Address):
        return str(address)
    return str(address.ipv4_mapped or IPv6Network((int(address), 64), strict=False))


def begin_visit(request: HttpRequest) -> str:
    """The visitor's id, a new one at the first act; `ensure_visitor` then puts it on the response."""
    visitor = visitor_of(request) or new_public_id("vis")
    request._begun_visitor = visitor  # type: ignore[attr-defined]
    return visitor


def ensure_visitor(request: HttpRequest, response: HttpResponseBase) -> str:
    """The visitor's id, whose cookie is set on `response` unless the browser already has it. For acts only, never for a plain GET."""
    visitor = begin_visit(request)
    if _from_cookie(request) != visitor:
        response.set_cookie(
            COOKIE,
            signing.dumps(visitor, salt=_SALT),
            max_age=MAX_AGE_S,
            httponly=True,
            samesite="Lax",
            secure=settings.SESSION_COOKIE_SECURE,
        )
    return visitor


def forget_visitor(response: HttpResponseBase) -> None:
    response.delete_cookie(COOKIE, samesite="Lax")


def _from_cookie(request: HttpRequest) -> str:
    try:
        return str(signing.loads(request.COOKIES.get(COOKIE, ""), salt=_SALT, max_age=MAX_AGE_S))
    except signing.BadSignature:
        return ""
