"""Serves the cards: kept by what they show, drawn one at a time, and never for who has it already."""

from __future__ import annotations

import base64
import threading
from typing import Any

import structlog
from django.core.cache import cache
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.cache import get_conditional_response
from django.utils.translation import gettext
from django.views.decorators.http import require_safe

from store.catalog import artifacts
from store.catalog.errors import ArtifactRejected
from store.catalog.models import Listing
from store.catalog.pictures import MAX_BYTES
from store.errors import AWAY
from store.pages import figures, front, measured
from store.pages.cards import drawing
from store.pages.cards.drawing import Card
from store.pages.templatetags.ui import price_of

log = structlog.get_logger(__name__)
KEPT_S = 24 * 3600
WAIT_S = 5.0
_drawing = threading.Lock()  # FreeType's faces are not for two threads, and a page asked for now comes before a picture


@require_safe
def of_listing(request: HttpRequest, publisher: str, slug: str) -> HttpResponse:
    """As everybody sees the listing."""
    found = front.cards(Listing.objects.reachable_by(None).filter(publisher__slug=publisher, slug=slug)).first()
    if found is None:
        raise Http404
    return _answer(request, card_of(found))


@require_safe
def of_store(request: HttpRequest) -> HttpResponse:
    return _answer(request, _card_of_store())


def address_of(listing: Listing) -> str:
    """Another one once the card looks different, so that whoever keeps pictures by their address fetches it anew."""
    path = reverse("pages:card", args=[listing.publisher.slug, listing.slug])
    return f"{path}?v={card_of(listing).key[:8]}"


def card_of(listing: Listing) -> Card:
    text, version, summary = listing.text(), listing.current_version, getattr(listing, "rating_summary", None)
    facts = []
    if summary is not None and summary.count:
        facts.append(f"★ {figures.number(summary.total / summary.count, 1)} ({figures.number(summary.count)})")
    facts.append(figures.offer(price_of(listing)))
    if (bar := measured.first_bar(version)) is not None:
        base = gettext(" (base %(value)s)") % {"value": bar.base} if bar.base else ""
        facts.append(f"{bar.label} {bar.value}{base}")
    kind = version.kind if version is not None else "prompt"
    icon = listing.live_revision.icon if listing.live_revision else ""
    return Card(text.name, listing.full_name, listing.publisher.name, text.summary, kind=kind, facts=tuple(facts), icon=icon)


def _card_of_store() -> Card:
    return Card(
        gettext("Find a GPT for the job. Try it before you sign up."),
        "GPT Store",
        "",
        gettext("Language models you can try, compare with the model they were built on, and call from your own code."),
    )


def _answer(request: HttpRequest, card: Card) -> HttpResponse:
    etag = f'"{card.key}"'
    known = get_conditional_response(request, etag=etag)
    response = known if known is not None else _drawn(card)
    if response.status_code < 400:
        response["ETag"] = etag
        response["Cache-Control"] = f"public, max-age={KEPT_S}"
    return response


def _drawn(card: Card) -> HttpResponse:
    key = f"card:{card.key}"
    kept = _kept(key)
    if isinstance(kept, str):
        return HttpResponse(base64.b64decode(kept), content_type="image/png")
    if not _drawing.acquire(timeout=WAIT_S):
        return HttpResponse(status=503, headers={"Retry-After": "10"})
    try:
        picture = drawing.png(card, _icon_of(card))
    finally:
        _drawing.release()
    _keep(key, base64.b64encode(picture).decode())
    return HttpResponse(picture, content_type="image/png")


def _icon_of(card: Card) -> bytes:
    """Empty where there is none, or it can't be read now."""
    try:
        return artifacts.read_blob(card.icon, max_bytes=MAX_BYTES) if card.icon else b""
    except (ArtifactRejected, *AWAY) as error:
        log.warning("a card is drawn without its icon", icon=card.icon, error=repr(error)[:200])
        return b""


def _kept(key: str) -> Any:
    try:
        return cache.get(key)
    except AWAY as error:
        log.warning("a card is drawn anew: the cache is away", error=repr(error)[:200])
        return None


def _keep(key: str, value: str) -> None:
    try:
        cache.set(key, value, timeout=KEPT_S)
    except AWAY as error:
        log.warning("a card is not kept: the cache is away", error=repr(error)[:200])
