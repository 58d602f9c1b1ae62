"""What I have, and what is wanted of me."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.decorators import login_required
from django.db.models import Prefetch
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_safe

from store.accounts.models import Publisher
from store.billing import prices
from store.catalog.models import Listing, Version
from store.catalog.revisions import EDITORS
from store.jobs import evaluations
from store.moderation import findings
from store.moderation.models import Submission
from store.pages.studio import forms
from store.pages.studio.access import own_listing, own_publisher, person


@login_required
@require_safe
def overview(request: HttpRequest) -> HttpResponse:
    owners = list(person(request).publishers.all())
    if len(owners) == 1:
        return redirect("pages:studio_publisher", owners[0].slug)
    listings = with_standing(owners)
    groups = [{"publisher": owner, "listings": [row for row in listings if row.publisher_id == owner.pk]} for owner in owners]
    return render(request, "pages/studio/overview.html", {"groups": groups})


@login_required
@require_safe
def publisher(request: HttpRequest, slug: str) -> HttpResponse:
    owner = own_publisher(request, slug)
    context = {
        "publisher": owner,
        "listings": with_standing([owner]),
        "role": owner.role_of(request.user),
        "members": owner.memberships.select_related("user").order_by("pk"),
        "others": person(request).publishers.exclude(pk=owner.pk),
    }
    return render(request, "pages/studio/publisher.html", context)


@login_required
@require_safe
def listing(request: HttpRequest, publisher: str, slug: str) -> HttpResponse:
    found = own_listing(request, publisher, slug)
    return render(request, "pages/studio/listing.html", dashboard(request, found))


def with_standing(owners: list[Publisher]) -> list[Listing]:
    """Listings of these publishers, each with its versions and submissions, newest first."""
    with_bases = Version.objects.select_related("base__listing", "base__base__listing")
    return list(
        Listing.objects.for_cards()
        .filter(publisher__in=owners)
        .prefetch_related(Prefetch("versions", with_bases), "revisions__texts", Prefetch("submissions", Submission.objects.order_by("-pk")))
        .order_by("-pk")
    )


def dashboard(request: HttpRequest, listing: Listing, **bound: Any) -> dict[str, Any]:
    """The context of a listing's page in the studio; `bound` replaces a fresh form by the one that was refused."""
    role = listing.publisher.role_of(request.user)
    latest = listing.submissions.prefetch_related("checks", "decisions").order_by("-pk").first()
    return {
        "listing": listing,
        "publisher": listing.publisher,
        "role": role,
        "may_edit": role in EDITORS,
        "versions": list(listing.versions.select_related("base__listing__publisher").prefetch_related("measurements")),
        "evaluable": evaluations.EVALUABLE,
        "draft_texts": listing.revisions.filter(state="draft").first(),
        "submission": latest,
        "checks": findings.shown(latest.checks.all()) if latest else [],
        "decision": next(iter(latest.decisions.all()), None) if latest else None,
        "asked": prices.asked(listing),
        "price": prices.of_listing(listing),
        "prices_form": forms.EditedPricesForm(initial=forms.prices_of(listing)),
        "permissions": {name: getattr(listing, name) for name in forms.PERMISSIONS},
        "permissions_seen": forms.permissions_seen(listing),
        "submission_form": forms.SubmissionForm(initial={"visibility": "unlisted" if listing.visibility == "unlisted" else "public"}),
        **bound,
    }
