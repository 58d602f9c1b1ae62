"""The vocabulary of the templates: icons, the generated icon of a listing, stars, safe Markdown, money and numbers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from django import template
from django.core.serializers.json import DjangoJSONEncoder
from django.http import HttpRequest
from django.template.base import Parser, Token
from django.templatetags.static import static
from django.urls import reverse
from django.utils import formats
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext

from store.accounts.models import User
from store.billing import access, prices
from store.billing.prices import Price
from store.catalog import licences
from store.catalog.models import Listing, ListingRevision, Version
from store.catalog.search import Count
from store.pages import figures, measured
from store.pages.markdown import render_markdown
from store.pages.measured import Bar

register = template.Library()

# ---------------------------------------------------------------- icons


@register.simple_tag
def icon(name: str, label: str = "", css: str = "") -> SafeString:
    """A symbol of the sprite; decorative unless `label` says what it means."""
    shown = format_html('role="img" aria-label="{}"', label) if label else mark_safe('aria-hidden="true"')
    css = f"icon {css}".strip()
    return format_html('<svg class="{}" viewBox="0 0 16 16" {}><use href="{}#i-{}"/></svg>', css, shown, static("icons.svg"), name)


@register.simple_tag
def star() -> SafeString:
    """The filled star that stands before the mean of ratings."""
    return format_html('<svg class="star" viewBox="0 0 16 16" aria-hidden="true"><use href="{}#star"/></svg>', static("icons.svg"))


_OPACITIES = (0.16, 0.36, 0.64, 1)
_DIAGONAL_LEAST = 0.64
_DRAWN = ' width="28" height="28"'  # inside another drawing no style sheet says how large
_FILLING = "matrix(1.3 0 0 1.3 -6.36 -6.3)"  # at 28 px the triangle fills the tile, else all look alike


@lru_cache(maxsize=2048)
def glyph(full_name: str, kind: str, size: str = "") -> SafeString:
    """The lower triangle of a causal attention map, drawn from sha256(full name).

    Byte 0 mod 8 is the hue, bytes 1 to 15 mod 4 are the opacities of the 5×5 triangle, row by row.
    """
    digest = hashlib.sha256(full_name.encode()).digest()
    cells = [(row, column) for row in range(5) for column in range(row + 1)]
    marks = []
    for byte, (row, column) in zip(digest[1:16], cells, strict=True):
        opacity = _OPACITIES[byte % 4]
        if row == column:
            opacity = max(opacity, _DIAGONAL_LEAST)
        marks.append(_mark(kind, 11.2 + 5 * column, 11 + 5 * row, opacity))
    return format_html(
        '<svg class="glyph {} hue-{} {}" viewBox="0 0 41 41"{} aria-hidden="true">'
        '<rect class="tile" x=".5" y=".5" width="40" height="40" rx="8.5"/>{}</svg>',
        kind,
        digest[0] % 8,
        size,
        mark_safe(_DRAWN if size == "small" else ""),
        mark_safe(f'<g transform="{_FILLING}">{"".join(marks)}</g>' if size == "small" else "".join(marks)),
    )


def _mark(kind: str, x: float, y: float, opacity: float) -> str:
    """One cell around (x, y): a square of full weights, a dot of an adapter, a diamond of a prompt GPT."""
    if kind == "weights":
        shape = f'rect class="cell" x="{x - 2:.1f}" y="{y - 2:.1f}" width="4" height="4" rx=".8"'
    elif kind == "adapter":
        shape = f'circle class="cell" cx="{x:.1f}" cy="{y:.1f}" r="2.15"'
    else:
        shape = f'path class="cell" d="M{x:.1f} {y - 2.5:.1f}l2.5 2.5-2.5 2.5-2.5-2.5z"'
    return f'<{shape} opacity="{opacity}"/>'


@register.simple_tag
def listing_icon(listing: Listing, size: str = "") -> SafeString:
    """The icon of a listing: its publisher's, else a generated one, whose shape says what kind the current version is."""
    revision = listing.shown_revision
    if revision is not None and revision.icon:
        return picture(revision, size)
    return generated_icon(listing, size)


@register.simple_tag
def generated_icon(listing: Listing, size: str = "") -> SafeString:
    version = listing.current_version or next(iter(listing.versions.all()), None)
    return glyph(listing.full_name, version.kind if version else "prompt", size)


@register.simple_tag
def licence_of(listing: Listing) -> SafeString:
    """Its licence, each part of it linked to its text."""
    pieces = licences.terms(listing.licence, name=listing.licence_name, url=listing.licence_url)
    return format_html_join("", "{}", ((_linked(piece),) for piece in pieces))


def _linked(piece: licences.Term) -> str | SafeString:
    return format_html('<a class="link" href="{}" rel="license noopener">{}</a>', piece.url, piece.text) if piece.url else piece.text


@register.simple_tag
def picture(revision: ListingRevision, size: str = "") -> SafeString:
    """The icon that a publisher gave; what stands beside it says whose it is."""
    digest = revision.icon if size == "large" else revision.small_icon
    return format_html(
        '<img class="glyph picture {}" src="{}" width="96" height="96" alt="" loading="lazy">', size, reverse("machine:icon", args=[digest])
    )


@register.simple_tag
def version_icon(version: Version, size: str = "") -> SafeString:
    if (revision := version.listing.shown_revision) is not None and revision.icon:
        return picture(revision, size)
    return glyph(version.listing.full_name, version.kind, size)


@register.simple_tag
def stars(value: float, size: str = "") -> SafeString:
    """Five stars, filled to `value` of 5, read aloud as a sentence."""
    whole = int(value)
    rest = value - whole
    width = max(0.0, 16 * whole - 1 + (1 + 14.3 * rest if rest else 0))
    label = gettext("%(value)s of 5 stars") % {"value": formats.localize(round(float(value), 1))}
    sprite = static("icons.svg")
    return format_html(
        '<svg class="stars {}" viewBox="0 0 80 14" role="img" aria-label="{}"><use class="off" href="{}#five" width="80" height="14"/>'
        '<svg width="{}" height="14"><use class="on" href="{}#five" width="80" height="14"/></svg></svg>',
        size,
        label,
        sprite,
        f"{width:.1f}",
        sprite,
    )


# ---------------------------------------------------------------- text


@register.filter
def markdown(text: str) -> SafeString:
    """Untrusted Markdown as safe HTML; put it inside an element of class `prose`."""
    return render_markdown(text or "")


@register.filter
def bcp47(code: str) -> str:
    """Django's language code as the `lang` attribute wants it: zh-hans → zh-Hans."""
    first, *rest = (code or "").split("-")
    return "-".join([first, *(part.title() if len(part) == 4 else part.upper() for part in rest)])


_LANGUAGE_NAMES = {
    "en": "English",
    "zh": "中文",
    "zh-hans": "中文",
    "fr": "Français",
    "de": "Deutsch",
    "es": "Español",
    "ja": "日本語",
    "it": "Italiano",
    "pt": "Português",
    "ru": "Русский",
    "ko": "한국어",
    "ar": "العربية",
    "hi": "हिन्दी",
}


@register.filter("autonym")  # Django's own `language_name`, which knows no plain "zh", comes with every {% load i18n %}
def language_name(code: str) -> str:
    """A language in its own words."""
    return _LANGUAGE_NAMES.get((code or "").lower(), code)


@register.filter
def has_token(request: HttpRequest) -> bool:
    """Whether a form can hold a CSRF token: where it would set a cookie, on a page that is only read, it can't."""
    return request.user.is_authenticated or "CSRF_COOKIE" in request.META


# ---------------------------------------------------------------- the head of a page


class SharedNode(template.Node):
    """What is between the tags, kept under a name instead of being written: a block is written once, a title is said three times."""

    child_nodelists = ("nodelist",)

    def __init__(self, nodelist: template.NodeList, name: str) -> None:
        self.nodelist, self._name = nodelist, name

    def render(self, context: template.Context) -> SafeString:
        said = str(self.nodelist.render(context)).strip().replace('"', "&quot;")
        context[self._name] = mark_safe(said)  # escaped where it was written; a quote may not end an attribute
        return mark_safe("")


@register.tag
def shared(parser: Parser, token: Token) -> SharedNode:
    """{% shared as page_title %}{% block title %}…{% endblock %}{% endshared %}"""
    _tag, _as, name = token.split_contents()
    nodelist = parser.parse(("endshared",))
    parser.delete_first_token()
    return SharedNode(nodelist, name)


@register.filter
def json_ld(rows: list[dict[str, Any]]) -> SafeString:
    """Data blocks, which no browser runs: what would end or open an element inside is written as JSON's own escapes."""
    written = (json.dumps(row, cls=DjangoJSONEncoder, ensure_ascii=False).translate(_JSON_ESCAPES) for row in rows or [])
    return mark_safe("".join(f'<script type="application/ld+json">{row}</script>\n' for row in written))


_JSON_ESCAPES = {ord(character): f"\\u{ord(character):04X}" for character in "<>&\u2028\u2029"}


# ---------------------------------------------------------------- numbers

for _filter in (
    *(figures.number, figures.signed, figures.compact, figures.parameter_count),
    *(figures.money, figures.price, figures.offer, figures.short_price, figures.duration),
):
    register.filter(_filter.__name__, _filter)


@register.filter
def price_of(thing: Listing | Version) -> Price:
    """What using it costs, with what it builds on; for the filters `offer` and `short_price`."""
    return prices.of_version(thing) if isinstance(thing, Version) else prices.of_listing(thing)


@register.simple_tag
def due(version: Version, user: Any) -> Price:
    """What this person pays for it."""
    return access.due(version, user if isinstance(user, User) else None)[0].price


@register.filter
def counted(count: Count) -> str:
    """A count that was not taken beyond 1,000, or not of everything: 1,000+."""
    return figures.number(count.shown) + ("+" if count.has_more else "")


@register.filter
def percent_of(value: float, whole: float) -> str:
    """A width for an SVG attribute: 3|percent_of:4 → 75.0%."""
    return f"{100 * value / whole:.1f}%" if whole else "0%"


@register.filter
def item(found: Any, key: Any) -> Any:
    """`found[key]` of a mapping or a list, or nothing."""
    if isinstance(found, list):
        return found[key]
    return found.get(key) if found else None


@register.filter
def first_bar(listing: Listing) -> Bar | None:
    """The first measured number of the current version, ready to draw."""
    return measured.first_bar(listing.current_version)


@register.filter
def first_draft(versions: Iterable[Version]) -> Version | None:
    return next((version for version in versions if version.is_editable), None)
