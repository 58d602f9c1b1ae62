"""How one GPT is used: a page with a chart and a table, and the same as CSV."""

from __future__ import annotations

import csv
from dataclasses import dataclass

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from store.pages import analytics
from store.pages.analytics import PERIODS_DAYS, Day, Use
from store.pages.studio.access import own_listing

WIDTH, HEIGHT = 720, 120  # of the chart, in its own units


@dataclass(frozen=True)
class Bar:
    day: Day
    x: float
    y: float
    width: float
    height: float


@login_required
@require_safe
def show(request: HttpRequest, publisher: str, slug: str) -> HttpResponse:
    found = own_listing(request, publisher, slug)
    days = _period(request)
    use = analytics.use_of(found, days=days)
    context = {"listing": found, "publisher": found.publisher, "use": use, "days": days, "periods": PERIODS_DAYS, "bars": bars(use)}
    size = {
        "width": WIDTH,
        "height": HEIGHT,
        "latest": [day for day in reversed(use.days) if day.requests or day.ratings or day.views],
        "most": max(day.requests for day in use.days),
    }
    return render(request, "pages/studio/analytics.html", {**context, **size})


@login_required
@require_safe
def download(request: HttpRequest, publisher: str, slug: str) -> HttpResponse:
    found = own_listing(request, publisher, slug)
    days = _period(request)
    response = HttpResponse(content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{found.publisher.slug}-{found.slug}-{days}-days.csv"'
    csv.writer(response).writerows(analytics.rows(analytics.use_of(found, days=days)))
    return response


def bars(use: Use) -> list[Bar]:
    """One for each day, as high as its requests beside the most of any day."""
    step, most = WIDTH / len(use.days), max(1, *(day.requests for day in use.days))
    heights = [HEIGHT * day.requests / most for day in use.days]
    return [
        Bar(day, index * step, HEIGHT - high, step * 0.8, high) for index, (day, high) in enumerate(zip(use.days, heights, strict=True))
    ]


def _period(request: HttpRequest) -> int:
    asked = request.GET.get("days", "")
    return int(asked) if asked in map(str, PERIODS_DAYS) else 30
