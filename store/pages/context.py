"""What the header and footer of every page need."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject
from django.utils.translation import get_language

from store.accounts.models import User
from store.notifications.models import Notification
from store.pages import indexing

_SHORT_NAMES = {"en": "EN", "zh-hans": "中文"}


def _unread(request: HttpRequest) -> int:
    user = getattr(request, "user", None)
    return Notification.objects.filter(user=user, read_at__isnull=True).count() if isinstance(user, User) else 0


def chrome(request: HttpRequest) -> dict[str, Any]:
    query = f"?{request.META['QUERY_STRING']}" if request.META.get("QUERY_STRING") else ""
    address = indexing.address_of(request)
    current = get_language() or settings.LANGUAGE_CODE
    languages = [
        {
            "code": code,
            "name": _SHORT_NAMES[code],
            "path": indexing.in_language(request.path, code) + query,
            "url": address.in_language(code),
            "is_current": code == current,
        }
        for code, _name in settings.LANGUAGES
    ]
    match = request.resolver_match
    return {
        "site": address.site,
        "site_languages": languages,
        "page_address": address,
        "at": f"{match.namespace}:{match.url_name}" if match else "",
        "unread": SimpleLazyObject(lambda: _unread(request)),
    }
