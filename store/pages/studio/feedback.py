"""What people thought of one GPT: its ratings by version and beside others of its use, and the feedback they agreed to share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db.models import Avg, Count, Q, Sum
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST, require_safe

from store.accounts.models import Membership
from store.catalog.models import Listing, UseCase, Version
from store.errors import DomainError
from store.pages.studio.access import own_listing, person
from store.playground import feedback, preference_sets
from store.ratings import reading
from store.ratings.models import RatingSummary

EDITORS = (Membership.Role.OWNER, Membership.Role.MAINTAINER)
SHOWN_QUESTIONS, SHOWN_PREFERENCES = 20, 5


@dataclass(frozen=True)
class OfUse:
    """A use case of the GPT: its own mean of stars beside that of all that serve it."""

    use_case: UseCase
    mean: float | None
    count: int
    mean_of_all: float | None
    listings: int


@login_required
@require_safe
def show(request: HttpRequest, publisher: str, slug: str) -> HttpResponse:
    found = own_listing(request, publisher, slug)
    told = feedback.of_listing(found)
    sets = list(found.preference_sets.select_related("file").annotate(pair_count=Count("pairs")))
    used = preference_sets.used_in(sets)
    context: dict[str, Any] = {
        "listing": found,
        "publisher": found.publisher,
        "may_edit": found.publisher.role_of(request.user) in EDITORS,
        "versions": by_version(found),
        "uses": by_use(found),
        "told": told,
        "questions": told.troubled[:SHOWN_QUESTIONS] if told.may_show_texts else [],
        "preferences": told.preferences[:SHOWN_PREFERENCES] if told.may_show_texts else [],
        "sets": [(its, used.get(its.public_id, [])) for its in sets],
        "least_people": settings.FEEDBACK_LEAST_PEOPLE,
    }
    return render(request, "pages/studio/feedback.html", context)


@login_required
@require_POST
def make_set(request: HttpRequest, publisher: str, slug: str) -> HttpResponse:
    found = own_listing(request, publisher, slug, *EDITORS)
    try:
        made = preference_sets.make(person(request), found)
    except DomainError as error:
        messages.error(request, str(error))
    else:
        messages.success(request, _("%(name)s is among your training files.") % {"name": made.file.name})
    return redirect("pages:studio_feedback", publisher, slug)


def by_version(listing: Listing) -> list[Version]:
    """Those that were rated, the newest first, with `mean`, `count`, and `low`: how many gave one or two stars."""
    given = Q(ratings__in=reading.visible(listing))
    rated = listing.versions.annotate(
        mean=Avg("ratings__stars", filter=given),
        count=Count("ratings", filter=given),
        low=Count("ratings", filter=given & Q(ratings__stars__lte=2)),
    )
    return list(rated.filter(count__gt=0).order_by("-pk"))


def by_use(listing: Listing) -> list[OfUse]:
    own = reading.visible(listing).aggregate(mean=Avg("stars"), count=Count("pk"))
    found = []
    for use_case in listing.use_cases.all():
        rated = RatingSummary.objects.filter(listing__use_cases=use_case, count__gt=0)
        of_all = rated.aggregate(stars=Sum("total"), ratings=Sum("count"), listings=Count("pk"))
        mean_of_all = of_all["stars"] / of_all["ratings"] if of_all["ratings"] else None
        found.append(OfUse(use_case, own["mean"], own["count"], mean_of_all, of_all["listings"]))
    return found
