"""What the header and footer of every page need."""

from __future__ import annotations

import re
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject
from django.utils.translation import get_language

from store.accounts.models import User
from store.notifications.models import Notification

_PREFIX = re.compile(r"^/(?:{})(?=/|$)".format("|".join(code for code, _name in settings.LANGUAGES)))
_SHORT_NAMES = {"en": "EN", "zh-hans": "中文"}


def _in_language(path: str, code: str) -> str:
    """The same page in another language; the home page for what has no language of its own."""
    return _PREFIX.sub(f"/{code}", path) if _PREFIX.match(path) else f"/{code}/"


def _unread(request: HttpRequest) -> int:
    user = getattr(request, "user", None)
    return Notification.objects.filter(user=user, read_at__isnull=True).count() if isinstance(user, User) else 0


def chrome(request: HttpRequest) -> dict[str, Any]:
    site = f"{request.scheme}://{request.get_host()}"
    query = f"?{request.META['QUERY_STRING']}" if request.META.get("QUERY_STRING") else ""
    current = get_language() or settings.LANGUAGE_CODE
    languages = [
        {
            "code": code,
            "name": _SHORT_NAMES[code],
            "path": _in_language(request.path, code) + query,
            "url": site + _in_language(request.path, code),
            "is_current": code == current,
        }
        for code, _name in settings.LANGUAGES
    ]
    match = request.resolver_match
    return {
        "site": site,
        "site_languages": languages,
        "canonical": site + request.path,
        "at": f"{match.namespace}:{match.url_name}" if match else "",
        "unread": SimpleLazyObject(lambda: _unread(request)),
    }
