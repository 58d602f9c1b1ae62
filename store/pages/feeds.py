"""What is new, as Atom (RFC 4287): GPTs of the whole store, of a use case and of a publisher, and the versions of one GPT.

Each feed holds the newest few, whatever the store holds, and is given again only to who has not got it yet (ETag). Its ids are
tag URIs (RFC 4151) of public ids, so that they stay when a GPT or the store's address changes its name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import wraps
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.feedgenerator import Atom1Feed
from django.utils.html import escape, linebreaks
from django.utils.translation import get_language, gettext
from django.views.decorators.http import conditional_page, require_safe

from store.accounts.models import Publisher
from store.catalog import search
from store.catalog.models import Listing, UseCase, Version
from store.pages import front
from store.pages.indexing import site_of
from store.pages.templatetags.ui import bcp47

ENTRIES = 30
KEPT_S = 300
Feed = Callable[..., Atom1Feed]
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


def atom(make: Feed) -> Callable[..., HttpResponse]:
    """A view of a feed."""

    @require_safe
    @conditional_page
    @wraps(make)
    def view(request: HttpRequest, *arguments: Any, **named: Any) -> HttpResponse:
        response = HttpResponse(make(request, *arguments, **named).writeString("utf-8"), content_type=Atom1Feed.content_type)
        response["Cache-Control"] = f"public, max-age={KEPT_S}"
        return response

    return view


@atom
def new_gpts(request: HttpRequest) -> Atom1Feed:
    about = gettext("GPTs that were just approved, newest first.")
    feed = _feed(request, "gpts", gettext("New GPTs · GPT Store"), about, reverse("pages:explore") + "?sort=new")
    return _with_gpts(request, feed, search.find(sort="new").page(size=ENTRIES).listings)


@atom
def of_use_case(request: HttpRequest, use_case: str) -> Atom1Feed:
    found = get_object_or_404(UseCase, slug=use_case)
    title = gettext("New GPTs for: %(name)s · GPT Store") % {"name": found.name}
    page = f"{reverse('pages:explore')}?use_case={found.slug}"
    feed = _feed(request, f"use-case:{found.slug}", title, gettext("GPTs that were just approved, newest first."), page)
    listings = search.find(facts=[search.fact("use", found.slug)], sort="new").page(size=ENTRIES).listings
    return _with_gpts(request, feed, listings)


@atom
def of_publisher(request: HttpRequest, slug: str) -> Atom1Feed:
    found = get_object_or_404(Publisher, slug=slug)
    title = gettext("GPTs of %(name)s · GPT Store") % {"name": found.name}
    feed = _feed(request, found.public_id, title, found.about[:200], reverse("pages:publisher", args=[found.slug]), author=found.name)
    listings = Listing.objects.listed().filter(publisher=found).order_by("-published_at", "-pk")[:ENTRIES]
    return _with_gpts(request, feed, front.cards(listings))


@atom
def of_versions(request: HttpRequest, publisher: str, slug: str) -> Atom1Feed:
    """The released ones, as everybody sees them. A GPT that is unlisted has one for who knows its address."""
    reachable = Listing.objects.reachable_by(None).select_related("publisher", "live_revision")
    listing = reachable.filter(publisher__slug=publisher, slug=slug).first()
    if listing is None:
        raise Http404
    page = reverse("pages:versions", args=[publisher, slug])
    text = listing.text()
    title = gettext("Versions of %(name)s · GPT Store") % {"name": text.name}
    feed = _feed(request, f"{listing.public_id}:versions", title, text.summary, page, author=listing.publisher.name)
    released = listing.versions.filter(state=Version.State.RELEASED, released_at__isnull=False)
    for version in released.order_by("-released_at", "-pk")[:ENTRIES]:
        feed.add_item(
            title=_plain(f"{text.name} {version.number}"),
            link=f"{site_of(request)}{page}#v{version.number}",
            description=linebreaks(_plain(version.change_log or gettext("Its publisher wrote no change log.")), autoescape=True),
            unique_id=_tag(version.public_id),
            author_name=_plain(listing.publisher.name),
            pubdate=version.released_at,
            updateddate=version.released_at,
        )
    return feed


# ---------------------------------------------------------------- in parts


class StoreFeed(Atom1Feed):
    """Django's, whose date is that of the newest entry; where there is none, one that does not move with the clock."""

    empty_date = datetime(2026, 1, 1, tzinfo=UTC)

    def latest_post_date(self) -> datetime:
        return super().latest_post_date() if self.items else self.empty_date


def _feed(request: HttpRequest, name: str, title: str, about: str, page: str, *, author: str = "GPT Store") -> StoreFeed:
    """`name` tells this feed from all others in its id, `page` is where people read the same."""
    site, language = site_of(request), get_language() or settings.LANGUAGE_CODE
    return StoreFeed(
        title=_plain(title),
        subtitle=_plain(about),
        description="",
        link=site + page,
        feed_url=site + request.path,
        feed_guid=_tag(f"feed:{language}:{name}"),
        language=bcp47(language),
        author_name=_plain(author),
    )


def _with_gpts(request: HttpRequest, feed: StoreFeed, listings: Iterable[Listing]) -> StoreFeed:
    site = site_of(request)
    for listing in listings:
        text, version = listing.text(), listing.current_version
        feed.add_item(
            title=_plain(text.name),
            link=site + reverse("pages:listing", args=[listing.publisher.slug, listing.slug]),
            description=escape(_plain(text.summary)),  # the generator calls it HTML
            unique_id=_tag(listing.public_id),
            author_name=_plain(listing.publisher.name),
            pubdate=listing.published_at,
            updateddate=(version and version.released_at) or listing.published_at,
            categories=[use_case.name for use_case in listing.use_cases.all()],
        )
    return feed


def _plain(text: str) -> str:
    """Without the characters that XML 1.0 has no way to write."""
    return _NOT_XML.sub("", text)


def _tag(name: str) -> str:
    return f"tag:{urlsplit(settings.SITE_URL).hostname},2026:{name}"
