"""Measured numbers as the pages draw them: the listing's bar over its base's line, with the interval as a whisker."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from store.catalog.models import Measurement, Version
from store.generation.models import Request
from store.jobs import suites
from store.pages.figures import number, signed

SIZES: dict[str, str | Promise] = {
    "paragraphs": _("%(count)s paragraphs"),
    "items": _("%(count)s items"),
    "tokens": _("%(count)s tokens"),
}
SAMPLE = 200  # of the latest answers, from which speed is told


@dataclass(frozen=True)
class Bar:
    """A measurement ready to draw; widths are percentages of the track."""

    label: str | Promise
    value: str
    margin: str  # half the interval, "" when none was measured
    base: str
    delta: str
    between: str  # the difference's interval, "" when none was measured
    verdict: str  # up | down | same, by what is better
    lower_is_better: bool
    own_width: str
    base_width: str
    low: str
    high: str
    unit: str
    method: str


def bars(version: Version) -> list[Bar]:
    """One number of each suite, in their order."""
    return [bar(measurement) for measurement in suites.headlines(version.measurements.all())]


def first_bar(version: Version | None) -> Bar | None:
    """The number that stands for the version where there is room for one."""
    return next(iter(bars(version)), None) if version is not None else None


def bar(measurement: Measurement, *, longest: float | None = None) -> Bar:
    """`longest`: what fills the track, where several bars stand under each other; else 100 % or a little more than the number."""
    value, base = measurement.value, measurement.base_value
    low, high = measurement.low, measurement.high
    longest = longest or (100.0 if measurement.unit == "%" else max(value, base or 0, high or 0) * 1.08 or 1.0)
    decimals = 1 if max(abs(value), abs(base or 0)) >= 10 else 2
    return Bar(
        label=suites.label_of(measurement.name),
        value=number(value, decimals),
        margin=number((high - low) / 2, decimals) if low is not None and high is not None else "",
        base=number(base, decimals) if base is not None else "",
        delta=signed(value - base, decimals) if base is not None else "",
        between=between(measurement, decimals),
        verdict=suites.line(measurement).verdict,
        lower_is_better=measurement.lower_is_better,
        own_width=_width(value, longest),
        base_width=_width(base, longest),
        low=_width(low, longest),
        high=_width(high, longest),
        unit=measurement.unit if measurement.unit != measurement.name else "",
        method=method_line(measurement),
    )


def between(measurement: Measurement, decimals: int) -> str:
    low, high = measurement.difference_low, measurement.difference_high
    return "" if low is None or high is None else f"{signed(low, decimals)} … {signed(high, decimals)}"


def _width(amount: float | None, longest: float) -> str:
    return "" if amount is None else f"{min(100 * amount / longest, 100):.1f}%"


def method_line(measurement: Measurement) -> str:
    """On how much it was measured, from the record of the method."""
    counts = {key: measurement.method.get(key) for key in SIZES}
    return " · ".join(SIZES[key] % {"count": number(count)} for key, count in counts.items() if isinstance(count, int))


@dataclass(frozen=True)
class Speed:
    """Medians over the latest finished answers of a version."""

    answers: int
    tokens_per_s: float
    first_token_ms: float


def speed(version: Version) -> Speed | None:
    rows = Request.objects.filter(
        version=version, state=Request.State.FINISHED, completion_tokens__gt=1, duration_ms__gt=0, first_token_ms__isnull=False
    ).values_list("completion_tokens", "duration_ms", "first_token_ms")[:SAMPLE]
    rates, firsts = [], []
    for tokens, duration_ms, first_ms in rows:
        if duration_ms is not None and first_ms is not None and duration_ms > first_ms:
            rates.append((tokens - 1) / ((duration_ms - first_ms) / 1000))
            firsts.append(first_ms)
    return Speed(len(rates), statistics.median(rates), statistics.median(firsts)) if rates else None
