"""Who calls: API keys as `Authorization: Bearer gs_…`."""

from __future__ import annotations

from django.http import HttpRequest
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from store.accounts.keys import find_key
from store.accounts.models import ApiKey, User
from store.api.errors import InvalidKey, MissingKey


def key_of(request: HttpRequest | Request) -> ApiKey:
    """The key that the request carries. Raises MissingKey or InvalidKey."""
    scheme, _space, secret = request.headers.get("Authorization", "").strip().partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise MissingKey
    key = find_key(secret.strip())
    if key is None:
        raise InvalidKey
    return key


def caller(request: Request) -> User:
    """Whose key it is, in a view that asks for one."""
    assert isinstance(request.user, User)
    return request.user


class ApiKeyAuthentication(BaseAuthentication):
    def authenticate(self, request: Request) -> tuple[User, ApiKey] | None:
        if "Authorization" not in request.headers:
            return None
        key = key_of(request)
        return key.user, key

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"
