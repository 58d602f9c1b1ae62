"""One look into the catalogue: what was asked for, what was found, and how many each further filter would leave.

All of it stands in the address, so a look can be shared and saved; what an address says wrongly is left out, and named.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any
from urllib.parse import urlencode

from django.http import QueryDict
from django.utils.functional import Promise
from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _

from store.catalog import search
from store.catalog.models import Listing, UseCase, Version
from store.catalog.search import Count, fact
from store.pages import front
from store.pages.templatetags.ui import language_name

PAGE_SIZE = 20
CHOICES_SHOWN = 12  # of a facet, the fullest first
MAX_QUESTION_CHARS = 200
SORTS: dict[str, str | Promise] = {
    "best": _("Best match"),
    "popular": _("Most used lately"),
    "rating": _("Best rated"),
    "new": _("Newest"),
    "price": _("Cheapest"),
    "name": _("Name"),
}
KINDS: dict[str, str | Promise] = dict(Version.Kind.choices)
SIZES: dict[str, str | Promise] = {
    "s": _("under 0.5B parameters"),
    "m": _("0.5B to 2B"),
    "l": _("2B to 10B"),
    "xl": _("10B and more"),
}
STARS: dict[str, str | Promise] = {"4": _("4 stars and more"), "3": _("3 stars and more")}
_VALUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9./+-]{0,99}")
_ON = "1"


def _no_label(value: str) -> str | Promise:
    return value


def _base_label(value: str) -> str | Promise:
    return value.partition("/")[2] or value


@dataclass(frozen=True)
class Filter:
    """One name of the address, the facts it stands for, and what its values are called."""

    label: str | Promise
    prefix: str  # of the facts; the whole fact where the only value is "1"
    name_of: Callable[[str], str | Promise] = _no_label
    values: tuple[str, ...] = ()  # all there can be, in their order; () for any

    @property
    def is_switch(self) -> bool:
        return not self.prefix.endswith("/")

    def takes(self, value: str) -> bool:
        if self.is_switch:
            return value == _ON
        return value in self.values if self.values else _VALUE.fullmatch(value) is not None

    def fact(self, value: str) -> str:
        return self.prefix if self.is_switch else fact(self.prefix.removesuffix("/"), value)

    def value(self, fact: str) -> str:
        return _ON if self.is_switch else fact.removeprefix(self.prefix)


FILTERS: dict[str, Filter] = {
    "use_case": Filter(_("Use case"), "use/"),
    "language": Filter(_("Works in"), "lang/", language_name),
    "kind": Filter(_("Kind"), "kind/", KINDS.__getitem__, tuple(KINDS)),
    "free": Filter(_("Price"), "free", lambda _value: _("Free to try and use"), (_ON,)),
    "rating": Filter(_("Rating"), "stars/", STARS.__getitem__, tuple(STARS)),
    "better": Filter(_("Measured"), "better", lambda _value: _("Better than its base"), (_ON,)),
    "base": Filter(_("Base model"), "base/", _base_label),
    "size": Filter(_("Size of the model"), "size/", SIZES.__getitem__, tuple(SIZES)),
    "licence": Filter(_("Licence"), "licence/"),
    "download": Filter(_("Weights"), "download", lambda _value: _("Can be downloaded"), (_ON,)),
}


@dataclass(frozen=True)
class Choice:
    """One filter: how many it leaves, the address that sets it, and whether it is set (then the address removes it)."""

    label: str | Promise
    count: Count
    address: str
    is_set: bool


@dataclass(frozen=True)
class Facet:
    name: str
    label: str | Promise
    choices: list[Choice]

    @property
    def is_set(self) -> bool:
        return any(choice.is_set for choice in self.choices)


def all_use_cases() -> dict[str, UseCase]:
    """By their slugs, in their order. One query."""
    return {use_case.slug: use_case for use_case in UseCase.objects.order_by("position", "slug")}


@dataclass(frozen=True)
class Exploration:
    q: str = ""
    filters: dict[str, str] = field(default_factory=dict)  # by their names in the address
    sort: str = "best"
    after: str = ""  # where the page before this one ended
    left_out: tuple[str, ...] = ()  # what the address says and can't be meant
    known_use_cases: dict[str, UseCase] | None = field(default=None, compare=False)  # all there are, when the caller has them anyway

    @classmethod
    def of(cls, query: QueryDict, use_cases: dict[str, UseCase] | None = None) -> Exploration:
        asked_for = {name: str(query[name]) for name in FILTERS if query.get(name)}
        filters = {name: value for name, value in asked_for.items() if FILTERS[name].takes(value)}
        left_out = [name for name in asked_for if name not in filters]
        sort = query.get("sort") or "best"
        left_out += ["sort"] if sort not in SORTS else []
        sort = sort if sort in SORTS else "best"
        after = query.get("after", "")
        is_position = search.is_position(after, sort) if after else True
        left_out += [] if is_position else ["after"]
        asked = query.get("q", "").replace("\x00", "").strip()
        left_out += ["q"] if len(asked) > MAX_QUESTION_CHARS else []
        return cls(asked[:MAX_QUESTION_CHARS], filters, sort, after if is_position else "", tuple(left_out), use_cases)

    # ---------------------------------------------------------------- what was found

    @cached_property
    def use_cases(self) -> dict[str, UseCase]:
        return self.known_use_cases if self.known_use_cases is not None else all_use_cases()

    @cached_property
    def found(self) -> search.Found:
        facts = [FILTERS[name].fact(value) for name, value in self.filters.items()]
        return search.find(q=self.q, facts=facts, sort=self.sort, after=self.after, use_cases=list(self.use_cases.values()))

    @property
    def total(self) -> Count:
        return self.found.total

    @cached_property
    def _page(self) -> search.Page:
        page = self.found.page(size=PAGE_SIZE)
        return replace(page, listings=front.with_measurements(page.listings))

    @property
    def hits(self) -> list[Listing]:
        return self._page.listings

    @property
    def next(self) -> str:
        return self.address(after=self._page.next) if self._page.next else ""

    @property
    def mended(self) -> list[tuple[str, str]]:
        """Words that no GPT has, and what was read for them."""
        return [(word, ", ".join(meant)) for word, meant in self.found.question.mended.items()]

    # ---------------------------------------------------------------- how to go on from here

    def address(self, **changes: str) -> str:
        """The query string of this look with some of it changed; whatever changes, the list begins at its top."""
        asked = {"q": self.q, **self.filters, "sort": "" if self.sort == "best" else self.sort, **changes}
        return "?" + urlencode({name: value for name, value in asked.items() if value})

    @property
    def kept_address(self) -> str:
        """What is kept of it when it is saved: all but the place in the list."""
        return self.address().removeprefix("?")

    @property
    def first(self) -> str:
        """The top of this list, where it has been left."""
        return self.address() if self.after else ""

    @cached_property
    def facets(self) -> list[Facet]:
        facets = [Facet(name, one.label, self._choices(name, one)) for name, one in FILTERS.items()]
        return [facet for facet in facets if facet.choices]

    def _choices(self, name: str, one: Filter) -> list[Choice]:
        chosen = self.filters.get(name, "")
        counts = {
            one.value(fact): count
            for fact, count in self.found.counts(one.prefix, one.fact(chosen) if chosen else "").items()
            if not one.is_switch or fact == one.prefix
        }
        if chosen:
            counts.setdefault(chosen, Count(0))
        order = list(self.use_cases) if name == "use_case" else list(one.values)
        values = [value for value in order if value in counts] or sorted(counts, key=lambda value: (-counts[value].number, value))
        values = [*values[:CHOICES_SHOWN], *([chosen] if chosen and chosen not in values[:CHOICES_SHOWN] else [])]
        return [
            Choice(
                self._label(name, value),
                counts[value],
                self.address(**{name: "" if value == chosen else value}),
                value == chosen,
            )
            for value in values
        ]

    def _label(self, name: str, value: str) -> str | Promise:
        if name == "use_case":
            return self.use_cases[value].name if value in self.use_cases else value
        return FILTERS[name].name_of(value)

    @cached_property
    def active(self) -> list[Choice]:
        """The filters that are set, to be shown and removed."""
        return [Choice(self._label(name, value), Count(0), self.address(**{name: ""}), True) for name, value in self.filters.items()]

    @property
    def only_use_case(self) -> UseCase | None:
        """Where this is the page of a use case, and no search result."""
        return self.use_cases.get(self.filters["use_case"]) if not self.q and set(self.filters) == {"use_case"} else None

    @property
    def sorts(self) -> list[tuple[str, str | Promise, bool]]:
        return [(name, label, name == self.sort) for name, label in SORTS.items()]

    @property
    def without_filters(self) -> str:
        return "?" + urlencode({"q": self.q}) if self.q else "?"

    @property
    def hidden_fields(self) -> list[tuple[str, str]]:
        """What the search form carries along."""
        return list(self.filters.items())

    # ---------------------------------------------------------------- to be kept

    @property
    def can_be_saved(self) -> bool:
        return bool(self.q or self.filters)

    @property
    def title(self) -> Any:
        """What it is called in a list: the words, then the filters."""
        parts = [f"“{self.q}”"] if self.q else []
        labels: list[Any] = [*parts, *(choice.label for choice in self.active)]
        return format_lazy(" · ".join(["{}"] * len(labels)), *labels) if labels else ""
