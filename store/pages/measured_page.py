"""Every number that was measured of a version, beside its base's, and what it takes to get the same ones again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from store.catalog.models import Listing, Measurement, Version
from store.jobs.suites import OWN, SUITES, Line, in_order, line, parts_of
from store.pages.version_history import versions_for


@dataclass(frozen=True)
class Method:
    """How a suite was measured; numbers measured alike stand together."""

    facts: Mapping[str, Any]
    suites: list[tuple[str, str, int]]  # name, sha256, items


@require_safe
def measured(request: HttpRequest, publisher: str, slug: str, number: str) -> HttpResponse:
    reachable = Listing.objects.reachable_by(request.user).select_related("publisher", "live_revision")
    found = reachable.filter(publisher__slug=publisher, slug=slug).first()
    version = None if found is None else _version(request, found, number)
    if found is None or version is None:
        raise Http404
    rows = in_order(version.measurements.all())
    context = {
        "listing": found,
        "version": version,
        "text": found.text(),
        "lines": [line(row) for row in rows if parts_of(row.name)[0] != OWN],
        "own_lines": _own(rows),
        "methods": _methods(rows),
        "suite_names": [name for name in SUITES if any(parts_of(row.name)[0] == name and row.method.get("suite") for row in rows)],
    }
    return render(request, "pages/measured.html", context)


def _version(request: HttpRequest, listing: Listing, number: str) -> Version | None:
    versions = versions_for(request.user, listing).filter(number=number).select_related("listing__publisher", "base__listing__publisher")
    return versions.prefetch_related("measurements").first()


def _own(rows: list[Measurement]) -> list[tuple[str, list[Line]]]:
    """By the digest of each suite that the publisher brought: its name is the publisher's words, which nobody has read."""
    found: dict[str, list[Line]] = {}
    for row in rows:
        if parts_of(row.name)[0] == OWN:
            found.setdefault(str(row.method.get("suite_sha256", "")), []).append(line(row))
    return list(found.items())


def _methods(rows: list[Measurement]) -> list[Method]:
    found: list[Method] = []
    for row in rows:
        facts = {name: value for name, value in row.method.items() if name not in ("suite", "suite_sha256", "items", "record")}
        if "suite" not in row.method:
            continue
        of_suite = (row.method["suite"], row.method["suite_sha256"], row.method["items"])
        alike = next((method for method in found if method.facts == facts), None)
        if alike is None:
            found.append(Method(facts, [of_suite]))
        elif of_suite[:2] not in [suite[:2] for suite in alike.suites]:
            alike.suites.append(of_suite)
    return found
