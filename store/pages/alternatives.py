"""Other GPTs for the same tasks as one: how well they do on the same items, what they cost, and which are the better value.

Better value is only said of what was measured on the same items of a suite of its use cases: no number is surely worse (the 95 %
intervals meet or the other is better), neither price is higher, and something is gained: a price is lower, or a number surely better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from store.billing import prices
from store.billing.prices import Price
from store.catalog import search
from store.catalog.models import Listing, Measurement, SearchEntry, Version
from store.jobs import suites
from store.pages import front
from store.pages.figures import number
from store.pages.version_changes import intervals_meet, with_margin

SHOWN, BETTER_SHOWN = 5, 3
LOADED = 24  # of those that share most use cases, looked at for better value
LOOKED_THROUGH = 300  # of the best of the store
COMPARED = 4  # side by side, with the GPT itself


@dataclass(frozen=True)
class Alternative:
    """A row; the GPT itself is one too."""

    listing: Listing
    price: Price
    value: str  # "31.4 ± 1.1" on the same items, "" where it was not measured on them
    per_money: str  # points for one unit of the currency, "" where that says nothing
    gain: str | Promise = ""  # why it is the better value; "" where it is not


@dataclass(frozen=True)
class Alternatives:
    """`label` names the number of the rows, and `use_case` the leaderboard (by slug) that ranks by it; both are "" where the GPT
    itself was measured on nothing that its use cases are about.
    """

    label: str
    use_case: str
    this: Alternative
    rows: Sequence[Alternative]

    @property
    def has_better(self) -> bool:
        return any(row.gain for row in self.rows)

    @property
    def has_per_money(self) -> bool:
        return any(row.per_money for row in (self.this, *self.rows))

    @property
    def compared(self) -> list[str]:
        return [row.listing.full_name for row in (self.this, *self.rows)][:COMPARED]


def of(listing: Listing, version: Version | None) -> Alternatives:
    """In a constant number of queries. `listing` and its version come with their use cases and measurements."""
    own = _fit_for(listing, version)
    label = next(iter(own), "")
    this_price = prices.of_version(version) if version is not None else prices.asked(listing)
    found = []
    for other in _candidates(listing):
        measured = _by_name(other.current_version)
        price = prices.of_listing(other)
        gain = _gain(own, measured, this_price, price)
        found.append(_row(other, price, _same_items(own.get(label), measured.get(label)), gain))
    better = [row for row in found if row.gain]
    better.sort(key=lambda row: row.price.input_micro + row.price.output_micro)
    chosen = better[:BETTER_SHOWN]
    chosen += [row for row in found if row not in chosen][: SHOWN - len(chosen)]
    this = _row(listing, this_price, own.get(label), "")
    slugs = (use_case.slug for use_case in listing.use_cases.all())
    use_case = next((slug for slug in slugs if label and suites.headline_of_use_case(slug) == label), "")
    return Alternatives(suites.label_of(label) if label else "", use_case, this, chosen)


def _candidates(listing: Listing) -> list[Listing]:
    """Of the best of the store those that share most of its use cases, else whatever serves the first."""
    wanted = {search.fact("use", use_case.slug) for use_case in listing.use_cases.all()}
    if not wanted:
        return []
    best = SearchEntry.objects.filter(is_listed=True).order_by("-rank", "-listing").values_list("listing", "facts")[:LOOKED_THROUGH]
    shared = [(len(wanted & set(facts.split())), pk) for pk, facts in best if pk != listing.pk]
    pks = [pk for number, pk in sorted(shared, key=lambda pair: -pair[0]) if number][:LOADED]
    if len(pks) < SHOWN:
        first = search.find(facts=sorted(wanted)[:1]).page(size=SHOWN + 1).listings
        pks = list(dict.fromkeys([*pks, *(other.pk for other in first if other.pk != listing.pk)]))
    found = {other.pk: other for other in front.cards(Listing.objects.listed().filter(pk__in=pks))}
    return [found[pk] for pk in pks if pk in found]


def _by_name(version: Version | None) -> dict[str, Measurement]:
    return {measured.name: measured for measured in version.measurements.all()} if version is not None else {}


def _fit_for(listing: Listing, version: Version | None) -> dict[str, Measurement]:
    """What says how well it does its tasks, in the order of its use cases."""
    measured = _by_name(version)
    names = [suites.headline_of_use_case(use_case.slug) for use_case in listing.use_cases.all()]
    return {name: measured[name] for name in names if name in measured}


def _same_items(one: Measurement | None, other: Measurement | None) -> Measurement | None:
    """The other, where both were measured on the same items."""
    if one is None or other is None or not one.method.get("suite_sha256"):
        return None
    return other if one.method["suite_sha256"] == other.method.get("suite_sha256") else None


def _gain(own: Mapping[str, Measurement], others: Mapping[str, Measurement], price: Price, other_price: Price) -> str | Promise:
    pairs = [(measured, same) for name, measured in own.items() if (same := _same_items(measured, others.get(name)))]
    is_dearer = other_price.input_micro > price.input_micro or other_price.output_micro > price.output_micro
    if not pairs or is_dearer or any(_is_better(measured, than=same) for measured, same in pairs):
        return ""
    is_better, is_cheaper = any(_is_better(same, than=measured) for measured, same in pairs), other_price != price
    if is_better and is_cheaper:
        return _("better and cheaper")
    if is_better:
        return _("better for the same price")
    return _("not measurably worse, and cheaper") if is_cheaper else ""


def _is_better(one: Measurement, *, than: Measurement) -> bool:
    return not intervals_meet(one, than) and (one.value < than.value) == one.lower_is_better


def _row(listing: Listing, price: Price, measured: Measurement | None, gain: str | Promise) -> Alternative:
    if measured is None:
        return Alternative(listing, price, "", "", gain)
    decimals = 1 if abs(measured.value) >= 10 else 2
    paid = (price.input_micro + price.output_micro) / prices.MICRO
    per_money = number(measured.value / paid, 1) if paid and not measured.lower_is_better else ""
    unit = measured.unit if measured.unit != measured.name else ""
    return Alternative(listing, price, with_margin(measured, decimals) + unit, per_money, gain)
