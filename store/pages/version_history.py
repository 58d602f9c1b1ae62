"""All versions of a GPT, newest first, each with its change log and what changed since the one before; and any two side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import AnonymousUser
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from store.accounts.models import User
from store.catalog.models import Listing, Version
from store.keyset import newest_first
from store.pages import indexing, structured, version_changes
from store.pages.version_changes import Change, MeasuredChange

SHOWN = 10
OFFERED = 200  # of the newest, to choose two from


@dataclass(frozen=True)
class Step:
    """From one version to another."""

    version: Version
    before: Version | None
    changes: Sequence[Change] = ()
    measured: Sequence[MeasuredChange] = ()

    @classmethod
    def between(cls, before: Version | None, version: Version) -> Step:
        if before is None:
            return cls(version, None)
        return cls(version, before, version_changes.differences(before, version), version_changes.measured(before, version))


def versions_for(user: User | AnonymousUser, listing: Listing) -> QuerySet[Version]:
    """Released ones for everybody; all of them for members and reviewers."""
    if isinstance(user, User) and (user.is_reviewer or listing.publisher.role_of(user)):
        return listing.versions.all()
    return listing.versions.filter(state=Version.State.RELEASED)


@require_safe
def versions(request: HttpRequest, publisher: str, slug: str) -> HttpResponse:
    reachable = Listing.objects.reachable_by(request.user).select_related("publisher", "live_revision", "current_version")
    listing = reachable.filter(publisher__slug=publisher, slug=slug).first()
    if listing is None:
        raise Http404
    known = versions_for(request.user, listing)
    loaded = known.select_related("artifact", "listing__publisher", "base__listing__publisher").prefetch_related("measurements")
    page = newest_first(loaded, before=request.GET.get("before", ""), size=SHOWN)
    context: dict[str, Any] = {
        "listing": listing,
        "text": listing.text(),
        "structured": structured.of_versions(indexing.site_of(request), listing, listing.text()),
        "steps": _steps(page.rows, loaded),
        "before": page.before,
        "numbers": list(known.values_list("number", flat=True)[:OFFERED]),
        **_chosen(request, loaded),
    }
    return render(request, "pages/versions.html", context)


def _steps(rows: list[Version], known: QuerySet[Version]) -> list[Step]:
    """Each with what was released before it; the last of a page looks beyond its end."""
    older = known.filter(released_at__isnull=False, pk__lt=rows[-1].pk).first() if rows else None
    steps: list[Step] = []
    for version in reversed(rows):
        steps.append(Step.between(older, version))
        older = version if version.released_at else older
    return steps[::-1]


def _chosen(request: HttpRequest, known: QuerySet[Version]) -> dict[str, Any]:
    """Two versions that the address names, beside each other."""
    asked = [request.GET.get("from", "")[:20], request.GET.get("to", "")[:20]]
    if not all(asked):
        return {}
    found = {version.number: version for version in known.filter(number__in=asked)}
    chosen: dict[str, Any] = {"from_number": asked[0], "to_number": asked[1]}
    if asked[0] == asked[1] or len(found) < 2:
        return chosen | {"cannot_compare": True}
    return chosen | {"chosen": Step.between(found[asked[0]], found[asked[1]])}
