"""Which pages search engines may keep, under which address, and in which languages.

A page is kept only if it is named here, so a new page is private until somebody says otherwise. What its address says besides
(a sort order, a page further on, where somebody came from) is left out of the canonical address, and looks into the catalogue
by several filters are no pages of their own: there are more of them than GPTs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlencode

from django.conf import settings
from django.http import HttpRequest
from django.utils.translation import get_language

_PREFIX = re.compile(r"^/(?:{})(?=/|$)".format("|".join(code for code, _name in settings.LANGUAGES)))
INDEXED = {  # view: the one parameter that makes a page of its own
    "pages:home": "",
    "pages:explore": "use_case",
    "pages:listing": "",
    "pages:versions": "",
    "pages:measured": "",
    "pages:publisher": "",
    "pages:leaderboards": "use_case",
    "playground:arena": "",
    "playground:arena_board": "use_case",
    "pages:developers": "",
    "pages:about": "",
    **dict.fromkeys(("pages:learn_gpt", "pages:learn_choosing", "pages:learn_quality", "pages:learn_risks", "pages:learn_publishing"), ""),
    "pages:policy": "",
}
BY_ONE_PARAMETER_ONLY = frozenset({"pages:explore"})  # with any other one it is a search result
OPEN_GRAPH_LOCALES = {"en": "en_US", "zh-hans": "zh_CN"}


@dataclass(frozen=True)
class Address:
    """The canonical address of a page, if it may be kept, and its twin in each language."""

    is_indexed: bool
    path: str  # with the query that belongs to it
    site: str

    @property
    def url(self) -> str:
        return self.site + self.path

    def in_language(self, code: str) -> str:
        return self.site + in_language(self.path, code)

    @property
    def default(self) -> str:
        """For readers of neither language."""
        return self.in_language(settings.LANGUAGE_CODE)

    @property
    def locale(self) -> str:
        return OPEN_GRAPH_LOCALES[get_language() or settings.LANGUAGE_CODE]

    @property
    def other_locales(self) -> list[str]:
        return [locale for locale in OPEN_GRAPH_LOCALES.values() if locale != self.locale]


def address_of(request: HttpRequest) -> Address:
    view = request.resolver_match.view_name if request.resolver_match else ""
    site = site_of(request)
    parameter = INDEXED.get(view)
    if parameter is None:
        return Address(False, request.path, site)
    value = request.GET.get(parameter, "") if parameter else ""
    query = f"?{urlencode({parameter: value})}" if value else ""
    is_result = view in BY_ONE_PARAMETER_ONLY and (set(request.GET) - {parameter} or len(request.GET.getlist(parameter)) > 1)
    return Address(not is_result, request.path + query, site)


def site_of(request: HttpRequest) -> str:
    return f"{request.scheme}://{request.get_host()}"


def in_language(path: str, code: str) -> str:
    """The same page in another language; the home page for what has no language of its own."""
    return _PREFIX.sub(f"/{code}", path) if _PREFIX.match(path) else f"/{code}/"
