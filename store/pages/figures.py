"""Numbers, money and lengths of time as the reader's language writes them."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from django.utils import formats
from django.utils.translation import get_language, gettext, ngettext

if TYPE_CHECKING:
    from store.billing.prices import Price


def _is_chinese() -> bool:
    return (get_language() or "").startswith("zh")


def number(value: float | None, decimals: int | None = None) -> str:
    """1234567.5 → 1,234,567.5, with a true minus sign."""
    if value is None:
        return "–"
    if decimals is not None:
        value = round(value, decimals)  # number_format cuts off
    return formats.number_format(value, decimals, use_l10n=True, force_grouping=True).replace("-", "−")


def signed(value: float, decimals: int | None = None) -> str:
    """With its sign; what rounds to nothing is ±0."""
    if decimals is not None and round(value, decimals) == 0:
        return "±" + number(0, decimals)
    return ("+" if value > 0 else "") + number(value, decimals)


def compact(value: float | None) -> str:
    """1234 → 1.2K, 1200000 → 1.2M; in Chinese 12345 → 1.2万."""
    if value is None:
        return "–"
    steps = [(1e8, "亿"), (1e4, "万")] if _is_chinese() else [(1e9, "B"), (1e6, "M"), (1e3, "K")]
    for size, suffix in steps:
        if abs(value) >= size:
            scaled = value / size
            return f"{scaled:.0f}{suffix}" if abs(scaled) >= 100 else f"{scaled:.1f}".removesuffix(".0") + suffix
    return number(value)


def parameter_count(value: int | None) -> str:
    """Model sizes are written alike everywhere: 134515008 → 135M."""
    if not value:
        return "–"
    for size, suffix in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if value >= size:
            scaled = value / size
            return (f"{scaled:.0f}" if scaled >= 10 else f"{scaled:.1f}".removesuffix(".0")) + suffix
    return str(value)


def money(micro: int | None) -> str:
    """Micro-units as money, at least two and as many decimals as it takes: 104 → $0.000104, 1500000 → $1.50."""
    micro = int(micro or 0)
    whole, rest = divmod(abs(micro), 1_000_000)
    decimals = f"{rest:06d}".rstrip("0").ljust(2, "0")
    sign = "−" if micro < 0 else ""
    currency = "US$" if _is_chinese() else "$"
    return f"{sign}{currency}{whole:,}.{decimals}"


def price(micro: int | None) -> str:
    """The price of a million tokens, or that there is none."""
    if not micro:
        return gettext("Free")
    return gettext("%(amount)s / 1M tokens") % {"amount": money(micro)}


def offer(of: Price) -> str:
    """A price in one line: both numbers when they differ."""
    if of.is_even:
        return price(of.output_micro)
    return gettext("%(input)s in, %(output)s out / 1M tokens") % {"input": money(of.input_micro), "output": money(of.output_micro)}


def short_price(of: Price) -> str:
    """The higher of the two numbers alone, for a column that says what it is."""
    return gettext("Free") if of.is_free else money(max(of.input_micro, of.output_micro))


def duration(seconds: float | datetime.timedelta | None) -> str:
    """A length of time as people say it: 370 → 6 min 10 s."""
    if seconds is None:
        return "–"
    if isinstance(seconds, datetime.timedelta):
        seconds = seconds.total_seconds()
    if seconds < 10:
        return gettext("%(seconds)s s") % {"seconds": number(round(seconds, 1))}
    whole = round(seconds)
    if whole < 60:
        return gettext("%(seconds)s s") % {"seconds": whole}
    if whole < 3600:
        return gettext("%(minutes)s min %(seconds)s s") % {"minutes": whole // 60, "seconds": whole % 60}
    if whole < 172_800:
        return gettext("%(hours)s h %(minutes)s min") % {"hours": whole // 3600, "minutes": whole % 3600 // 60}
    days = whole // 86_400
    return ngettext("%(days)s day", "%(days)s days", days) % {"days": days}
