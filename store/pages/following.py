"""What a person follows, and the buttons by which they do."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST, require_safe

from store.accounts.models import Publisher, User
from store.catalog import following as acts
from store.catalog.models import Follow, Listing
from store.keyset import newest_first


def of_page(user: User | AnonymousUser, *, publisher: Publisher, listing: Listing | None = None) -> dict[str, Any]:
    """What the page of a publisher or of a listing shows: whether this person follows it. One query, none for a visitor."""
    if not isinstance(user, User):
        return {"follow": None, "follows_publisher": False}
    rows = Follow.objects.filter(user=user)
    found = list(rows.filter(publisher=publisher) | rows.filter(listing=listing) if listing else rows.filter(publisher=publisher))
    own = next((row for row in found if (row.listing_id is not None) == (listing is not None)), None)
    return {"follow": own, "follows_publisher": any(row.publisher_id for row in found)}


@login_required
@require_safe
def following(request: HttpRequest) -> HttpResponse:
    assert isinstance(request.user, User)
    rows = Follow.objects.filter(user=request.user).select_related(
        "publisher", "listing__publisher", "listing__live_revision", "listing__current_version"
    )
    page = newest_first(rows.prefetch_related("listing__live_revision__texts"), before=request.GET.get("before", ""))
    pks = [row.listing_id for row in page.rows if row.listing_id]
    reachable = set(Listing.objects.reachable_by(request.user).filter(pk__in=pks).values_list("pk", flat=True))
    return render(request, "pages/following.html", {"rows": page.rows, "before": page.before, "reachable": reachable})


@login_required
@require_POST
def follow_listing(request: HttpRequest, publisher: str, slug: str) -> HttpResponse:
    assert isinstance(request.user, User)
    reachable = Listing.objects.reachable_by(request.user).select_related("publisher")
    listing = get_object_or_404(reachable, publisher__slug=publisher, slug=slug)
    acts.follow_listing(request.user, listing)
    messages.success(request, _("You follow %(name)s and are told of its new versions.") % {"name": listing.full_name})
    return redirect("pages:listing", publisher, slug)


@login_required
@require_POST
def follow_publisher(request: HttpRequest, slug: str) -> HttpResponse:
    assert isinstance(request.user, User)
    publisher = get_object_or_404(Publisher, slug=slug)
    acts.follow_publisher(request.user, publisher)
    messages.success(request, _("You follow %(name)s and are told of everything they publish.") % {"name": publisher.name})
    return redirect("pages:publisher", slug)


@login_required
@require_POST
def stop(request: HttpRequest, public_id: str) -> HttpResponse:
    """Back to the page of what was followed, where it was asked for there."""
    assert isinstance(request.user, User)
    ended = acts.stop(request.user, public_id)
    messages.success(request, _("You do not follow it any more."))
    if request.POST.get("from") != "page":
        return redirect("pages:following")
    if ended.listing is not None:
        return redirect("pages:listing", ended.listing.publisher.slug, ended.listing.slug)
    assert ended.publisher is not None
    return redirect("pages:publisher", ended.publisher.slug)
