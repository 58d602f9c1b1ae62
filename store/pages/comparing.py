"""Two to four GPTs side by side: the same text answered by all at once, above what each of them is, does, allows and costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from store.billing import access, prices
from store.catalog import licences, naming
from store.catalog.errors import VersionWithdrawn
from store.catalog.models import Listing, ListingText, Measurement, Version
from store.generation import precision
from store.jobs import suites
from store.pages import measured
from store.pages.figures import money, number, offer, parameter_count
from store.pages.templatetags.ui import language_name
from store.pages.version_changes import intervals_meet, with_margin
from store.playground.models import Standing
from store.ratings.models import RatingSummary

MOST = 4
OFFERED = 100
VOLUME = {"read": 1_000_000, "written": 250_000}  # tokens a month, where the reader names none
MOST_TOKENS = 10**12
NONE = "–"


@dataclass(frozen=True)
class Side:
    version: Version
    name: str  # as it was asked for
    text: ListingText
    due: prices.Due
    root: Version  # whose weights answer
    without: str  # the address of the page without this one
    measurements: list[Measurement] = field(default_factory=list)


@dataclass(frozen=True)
class Cell:
    text: str
    note: str = ""
    is_best: bool = False  # surely better than all others, or cheaper


@dataclass(frozen=True)
class Row:
    label: str
    cells: Sequence[Cell]
    note: str = ""


@never_cache
@require_safe
def compare(request: HttpRequest) -> HttpResponse:
    """`gpt` names each, as the API would: with @ and a number, members compare drafts too. `read` and `written`: tokens a month."""
    names = list(dict.fromkeys(name.strip() for name in request.GET.getlist("gpt") if name.strip()))[:MOST]
    sides, unknown = _sides(request, names)
    volume, is_understood = _volume(request)
    context: dict[str, Any] = {
        "sides": sides,
        "unknown": unknown,
        "offered": _offered(names) if len(sides) < MOST else [],
        "must_sign_in": not request.user.is_authenticated and any(not side.due.price.is_free for side in sides),
        "starters": next((side.version.starters for side in sides if side.version.starters), []),
        "volume": volume,
        "is_understood": is_understood,
        "most_tokens": MOST_TOKENS,
        "groups": _groups(sides, volume) if sides else [],
        "address": request.build_absolute_uri(),
        "requests_per_minute": settings.REQUESTS_PER_MINUTE,
    }
    return render(request, "pages/compare.html", context)


def _sides(request: HttpRequest, names: list[str]) -> tuple[list[Side], list[str]]:
    person = request.user if request.user.is_authenticated else None
    sides, unknown = [], []
    for name in names:
        try:
            version = naming.resolve(name, request.user)
        except (naming.UnknownModel, VersionWithdrawn):
            unknown.append(name[: naming.MAX_NAME_CHARS])
            continue
        without = _address(other for other in names if other != name)
        sides.append(Side(version, name, version.listing.text(), access.due(version, person)[0], version.weights(), without))
    by_pk = {side.version.pk: side for side in sides}
    for row in Measurement.objects.filter(version__in=by_pk):
        by_pk[row.version_id].measurements.append(row)
    return sides, unknown


def _volume(request: HttpRequest) -> tuple[dict[str, int], bool]:
    """Tokens a month, and whether what was asked for could be understood; what could not is as usual."""
    volume, is_understood = dict(VOLUME), True
    for name in VOLUME:
        asked = request.GET.get(name, "").strip()
        if asked.isascii() and asked.isdigit() and len(asked) <= 13 and int(asked) <= MOST_TOKENS:
            volume[name] = int(asked)
        elif asked:
            is_understood = False
    return volume, is_understood


def _address(names: Iterable[str]) -> str:
    return f"{reverse('pages:compare')}?{urlencode([('gpt', name) for name in names])}"


def _offered(names: list[str]) -> list[str]:
    """Names that can be added, most used first."""
    listed = Listing.objects.listed().select_related("publisher").order_by("-request_count", "id")[:OFFERED]
    return [listing.full_name for listing in listed if listing.full_name not in names]


# ---------------------------------------------------------------- the table


def _groups(sides: Sequence[Side], volume: dict[str, int]) -> list[tuple[str, list[Row]]]:
    return [
        (_("Cost"), _cost(sides, volume)),
        (_("Measured"), [*_measured(sides), *_speed(sides)]),
        (_("Opinions"), _opinions(sides)),
        (_("Limits"), _limits(sides)),
        (_("Licence and rights"), _rights(sides)),
    ]


def _cost(sides: Sequence[Side], volume: dict[str, int]) -> list[Row]:
    costs = [_monthly(side.due.price, volume) for side in sides]
    cheapest = min(costs)
    cells = [Cell(money(cost) if cost else _("Free"), is_best=cost == cheapest and max(costs) > cost) for cost in costs]
    return [
        Row(_("A month at your volume"), cells),
        Row(_("Price"), [Cell(_("Free") if side.due.price.is_free else offer(side.due.price)) for side in sides]),
        *_access(sides),
    ]


def _access(sides: Sequence[Side]) -> list[Row]:
    """What is paid once instead of a GPT's own price per token, where any of them offers that."""
    listings = [side.version.listing for side in sides]
    if not any(listing.monthly_price_micro for listing in listings):
        return []
    cells = [
        Cell(money(listing.monthly_price_micro), note=_("up to %(tokens)s tokens") % {"tokens": number(listing.monthly_tokens)})
        if listing.monthly_price_micro
        else Cell(NONE)
        for listing in listings
    ]
    return [Row(_("Or once for 30 days"), cells, note=_("instead of its own price per token"))]


def _monthly(price: prices.Price, volume: dict[str, int]) -> int:
    """In micro-units; every request is rounded up by less than one, which is not counted."""
    of = {"input_price_micro": price.input_micro, "output_price_micro": price.output_micro}
    return prices.cost(prompt_tokens=volume["read"], completion_tokens=volume["written"], **of)


def _measured(sides: Sequence[Side]) -> list[Row]:
    """One number of each suite that any of them was put to. Compared is only what was measured on the same items."""
    found = [{row.name: row for row in suites.headlines(side.measurements)} for side in sides]
    rows = suites.in_order({name: row for of_side in found for name, row in of_side.items()}.values())
    return [_measured_row(name, [of_side.get(name) for of_side in found]) for name in (row.name for row in rows)]


def _measured_row(name: str, found: Sequence[Measurement | None]) -> Row:
    editions = Counter(str(row.method.get("suite_sha256")) for row in found if row is not None)
    edition = editions.most_common(1)[0][0]
    same = [row for row in found if row is not None and str(row.method.get("suite_sha256")) == edition]
    cells = []
    for row in found:
        if row is None:
            cells.append(Cell(NONE))
            continue
        unit = row.unit if row.unit != row.name else ""
        text = with_margin(row, 1 if abs(row.value) >= 10 else 2) + unit
        if row not in same:
            cells.append(Cell(text, note=_("on other items")))
        else:
            cells.append(Cell(text, is_best=len(same) > 1 and all(_is_better(row, other) for other in same if other is not row)))
    return Row(suites.label_of(name), cells)


def _is_better(one: Measurement, other: Measurement) -> bool:
    return not intervals_meet(one, other) and (one.value < other.value) == one.lower_is_better


def _speed(sides: Sequence[Side]) -> list[Row]:
    speeds = [measured.speed(side.version) for side in sides]
    rates = [Cell(number(speed.tokens_per_s, 0) if speed else NONE) for speed in speeds]
    firsts = [Cell(_("%(time)s ms") % {"time": number(speed.first_token_ms, 0)} if speed else NONE) for speed in speeds]
    latest = _("median of the latest answers here")
    return [Row(_("Tokens per second"), rates, latest), Row(_("Time to the first token"), firsts, latest)]


def _opinions(sides: Sequence[Side]) -> list[Row]:
    summaries = RatingSummary.objects.in_bulk([side.version.listing_id for side in sides], field_name="listing_id")
    rated = {row.version_id: row for row in Standing.objects.filter(use_case=None, version__in=[side.version for side in sides])}
    stars = [_stars(summaries.get(side.version.listing_id)) for side in sides]
    return [Row(_("Ratings"), stars), Row(_("Arena"), [_arena(rated.get(side.version.pk)) for side in sides])]


def _stars(summary: RatingSummary | None) -> Cell:
    if summary is None or not summary.count:
        return Cell(NONE)
    return Cell(f"{number(summary.mean, 1)} ★", note=_("of %(count)s") % {"count": number(summary.count)})


def _arena(standing: Standing | None) -> Cell:
    if standing is None:
        return Cell(NONE)
    text = f"{number(standing.rating, 0)} ± {number(standing.margin, 0)}"
    return Cell(text, note=_("of %(count)s votes") % {"count": number(standing.votes)})


def _limits(sides: Sequence[Side]) -> list[Row]:
    contexts = [side.root.facts.get("context_length") for side in sides]
    longest = [min(settings.MAX_COMPLETION_TOKENS, context or settings.MAX_COMPLETION_TOKENS) for context in contexts]
    return [
        Row(_("Context"), [Cell(_tokens(context) if context else NONE) for context in contexts]),
        Row(_("Served in"), [Cell(_served(side.version)) for side in sides]),
        Row(_("Longest answer"), [Cell(_tokens(tokens)) for tokens in longest]),
        Row(_("Works in"), [Cell(", ".join(map(language_name, side.version.listing.languages)) or NONE) for side in sides]),
    ]


def _served(version: Version) -> str:
    return ", ".join(map(str, precision.in_words(precision.of(version)))) or _("not served yet")


def _tokens(count: int) -> str:
    return _("%(n)s tokens") % {"n": number(count)}


def _rights(sides: Sequence[Side]) -> list[Row]:
    return [
        Row(_("Licence"), [Cell(_licence(side.version.listing)) for side in sides]),
        Row(_("Weights can be downloaded"), [Cell(_yes(side.version.listing.allow_download)) for side in sides]),
        Row(_("Others may fine-tune it"), [Cell(_yes(side.version.listing.allow_finetune)) for side in sides]),
        Row(_("Kind"), [Cell(str(side.version.get_kind_display())) for side in sides]),
        Row(_("Size"), [Cell(_parameters(side.root.facts.get("parameters"))) for side in sides]),
    ]


def _licence(listing: Listing) -> str:
    return "".join(term.text for term in licences.terms(listing.licence, name=listing.licence_name, url=listing.licence_url)) or NONE


def _parameters(count: int | None) -> str:
    return _("%(n)s parameters") % {"n": parameter_count(count)} if count else NONE


def _yes(holds: bool) -> str:
    return _("Yes") if holds else _("No")
