"""What search engines are told: which addresses to leave alone, and where all pages are (sitemaps.org, robots.txt of RFC 9309).

A part of the sitemap is a range of primary keys, so that each costs one walk along an index whatever the store holds, and its
address says the same things tomorrow. The index needs the greatest key alone; a range may be empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from xml.sax.saxutils import escape

from django.conf import settings
from django.db.models import Max
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import translation
from django.views.decorators.http import require_safe

from store.accounts.models import Publisher
from store.catalog.models import Listing, UseCase
from store.pages.indexing import site_of
from store.pages.templatetags.ui import bcp47

KEYS_PER_PART = 2_500  # each in every language, so 5,000 addresses: a tenth of what the protocol allows
KEPT_S = 3_600
CODES = [code for code, _name in settings.LANGUAGES]
PAGES = (
    *("home", "explore", "leaderboards", "developers", "about", "policy"),
    *("learn_gpt", "learn_choosing", "learn_quality", "learn_risks", "learn_publishing"),
)
PRIVATE = ("account", "inbox", "wallet", "studio", "batches", "review", "operations", "chat", "following", "collections")
_OPEN = '<?xml version="1.0" encoding="UTF-8"?>\n'
_NAMESPACES = 'xmlns="http://www.sitemaps.org/schemas/sitemap/0.9" xmlns:xhtml="http://www.w3.org/1999/xhtml"'


@require_safe
def robots(request: HttpRequest) -> HttpResponse:
    """Search results by several filters are left alone too: there are more of them than GPTs. The longest rule that fits counts."""
    lines = ["User-agent: *"]
    lines += [f"Disallow: /{path}/" for path in ("admin", "api", "v1", "i18n")]
    lines += [f"Disallow: /{code}/{path}/" for code in CODES for path in PRIVATE]
    for code in CODES:
        explore = f"/{code}/explore/"
        lines += [f"Disallow: {explore}?", f"Allow: {explore}?use_case=", f"Disallow: {explore}?use_case=*&"]
        lines += [f"Disallow: {explore}saved/", f"Disallow: {explore}suggest/"]
    lines += ["", f"Sitemap: {site_of(request)}{reverse('machine:sitemap')}", ""]
    return _kept(HttpResponse("\n".join(lines), content_type="text/plain"))


@require_safe
def sitemap(request: HttpRequest) -> HttpResponse:
    site = site_of(request)
    parts = ["pages"]
    for kind, model in (("gpts", Listing), ("publishers", Publisher)):
        greatest = model._default_manager.aggregate(greatest=Max("pk"))["greatest"] or 0
        parts += [f"{kind}-{number}" for number in range(greatest // KEYS_PER_PART + 1)] if greatest else []
    places = (f"<sitemap><loc>{escape(site + reverse('machine:sitemap_part', args=[part]))}</loc></sitemap>\n" for part in parts)
    return _xml(f"{_OPEN}<sitemapindex {_NAMESPACES}>\n", places, "</sitemapindex>\n")


@require_safe
def sitemap_part(request: HttpRequest, part: str) -> HttpResponse:
    """`pages`, or `gpts-0`, `publishers-3`: those whose keys are in that range."""
    kind, _dash, number = part.partition("-")
    if part == "pages":
        found = _pages()
    elif kind in _RANGES and number.isascii() and number.isdigit() and len(number) <= 9:
        found = _RANGES[kind](int(number) * KEYS_PER_PART)
    else:
        raise Http404
    site = site_of(request)
    return _xml(f"{_OPEN}<urlset {_NAMESPACES}>\n", (_entry(site, path, changed) for path, changed in found), "</urlset>\n")


# ---------------------------------------------------------------- what there is, as paths without their language


def _pages() -> Iterator[tuple[str, datetime | None]]:
    with translation.override(CODES[0]):
        for name in PAGES:
            yield _bare(reverse(f"pages:{name}")), None
        for use_case in UseCase.objects.values_list("slug", flat=True):
            yield f"explore/?use_case={use_case}", None


def _gpts(first: int) -> Iterator[tuple[str, datetime | None]]:
    listed = Listing.objects.listed().filter(pk__gte=first, pk__lt=first + KEYS_PER_PART).order_by("pk")
    rows = listed.values_list("publisher__slug", "slug", "current_version__released_at", "live_revision__created_at")
    for publisher, slug, released, written in rows.iterator():
        yield f"gpts/{publisher}/{slug}/", max(filter(None, (released, written)), default=None)


def _publishers(first: int) -> Iterator[tuple[str, datetime | None]]:
    """Those that list something: the page of the others says nothing."""
    listing = Listing.objects.listed().values("publisher")
    found = Publisher.objects.filter(pk__gte=first, pk__lt=first + KEYS_PER_PART, pk__in=listing).order_by("pk")
    for slug in found.values_list("slug", flat=True).iterator():
        yield f"publishers/{slug}/", None


_RANGES = {"gpts": _gpts, "publishers": _publishers}


# ---------------------------------------------------------------- as XML


def _entry(site: str, path: str, changed: datetime | None) -> str:
    """The page in each language, and in each of them the addresses of all."""
    places = {code: escape(f"{site}/{code}/{path}", {'"': "&quot;"}) for code in CODES}
    twins = "".join(f'<xhtml:link rel="alternate" hreflang="{bcp47(code)}" href="{place}"/>' for code, place in places.items())
    twins += f'<xhtml:link rel="alternate" hreflang="x-default" href="{places[settings.LANGUAGE_CODE]}"/>'
    when = f"<lastmod>{changed:%Y-%m-%dT%H:%M:%SZ}</lastmod>" if changed else ""
    return "".join(f"<url><loc>{place}</loc>{when}{twins}</url>\n" for place in places.values())


def _xml(head: str, rows: Iterable[str], tail: str) -> HttpResponse:
    return _kept(HttpResponse("".join([head, *rows, tail]), content_type="application/xml"))


def _kept(response: HttpResponse) -> HttpResponse:
    response["Cache-Control"] = f"public, max-age={KEPT_S}"
    return response


def _bare(path: str) -> str:
    return path.removeprefix(f"/{CODES[0]}/")
