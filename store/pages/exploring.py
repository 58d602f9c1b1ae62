"""One look into the catalogue: what was asked for, what was found, and how many each further filter would leave."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import urlencode

from django.db.models import Count
from django.http import QueryDict
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from store.catalog import search
from store.catalog.models import Listing, UseCase, Version
from store.pages import front
from store.pages.templatetags.ui import language_name

PAGE_SIZE = 20
MAX_PAGE = 500
SORTS: dict[str, str | Promise] = {
    "popular": _("Most used"),
    "rating": _("Best rated"),
    "new": _("Newest"),
    "name": _("Name"),
}
KINDS: dict[str, str | Promise] = dict(Version.Kind.choices)


@dataclass(frozen=True)
class Choice:
    """One filter: how many it leaves, the address that sets it, and whether it is set (then the address removes it)."""

    label: str | Promise
    count: int
    address: str
    is_set: bool


@dataclass(frozen=True)
class Facet:
    label: str | Promise
    choices: list[Choice]


@dataclass(frozen=True)
class Exploration:
    q: str = ""
    use_case: str = ""
    language: str = ""
    kind: str = ""
    free: bool = False
    sort: str = "popular"
    page: int = 1

    @classmethod
    def of(cls, query: QueryDict) -> Exploration:
        """What an address asks for; what it says wrongly is left out."""
        page = query.get("page", "1")
        return cls(
            q=query.get("q", "").replace("\x00", "").strip()[:200],
            use_case=query.get("use_case", "")[:40],
            language=query.get("language", "")[:10],
            kind=query.get("kind", "") if query.get("kind") in KINDS else "",
            free=query.get("free") == "1",
            sort=query.get("sort", "") if query.get("sort") in SORTS else "popular",
            page=min(max(int(page), 1), MAX_PAGE) if page.isascii() and page.isdecimal() and len(page) < 6 else 1,
        )

    # ---------------------------------------------------------------- what was found

    def _found(self, **changes: Any) -> Any:
        asked = {"q": self.q, "use_case": self.use_case, "language": self.language, "kind": self.kind, "free": self.free}
        return search.find(**{**asked, **changes}, sort=self.sort)

    @cached_property
    def total(self) -> int:
        return int(self._found().order_by().count())

    @cached_property
    def hits(self) -> list[Listing]:
        start = (self.page - 1) * PAGE_SIZE
        return list(front.cards(self._found())[start : start + PAGE_SIZE])

    @property
    def shown(self) -> int:
        return (self.page - 1) * PAGE_SIZE + len(self.hits)

    @property
    def next(self) -> str:
        return self.address(page=self.page + 1) if self.shown < self.total and self.hits else ""

    @property
    def previous(self) -> str:
        return self.address(page=self.page - 1) if self.page > 1 else ""

    # ---------------------------------------------------------------- how to go on from here

    def address(self, **changes: Any) -> str:
        """The query string of this look with some of it changed; a change of filter begins at the first page."""
        asked = {"q": self.q, "use_case": self.use_case, "language": self.language, "kind": self.kind}
        asked |= {"free": "1" if self.free else "", "sort": "" if self.sort == "popular" else self.sort}
        asked |= {name: value for name, value in changes.items() if not (name == "page" and value == 1)}
        return "?" + urlencode({name: value for name, value in asked.items() if value})

    @cached_property
    def facets(self) -> list[Facet]:
        facets = [
            Facet(_("Use case"), self._use_cases()),
            Facet(_("Works in"), self._languages()),
            Facet(_("Kind"), self._kinds()),
            Facet(_("Price"), self._prices()),
        ]
        return [facet for facet in facets if facet.choices]

    def _choice(self, name: str, value: str, label: str | Promise, count: int, is_set: bool) -> Choice:
        return Choice(label, count, self.address(**{name: "" if is_set else value}), is_set)

    def _use_cases(self) -> list[Choice]:
        counts = search.use_case_counts(self._found(use_case=""))
        return [self._choice("use_case", use.slug, use.name, count, use.slug == self.use_case) for use, count in counts]

    def _languages(self) -> list[Choice]:
        rows = self._found(language="").order_by().values_list("languages").annotate(listings=Count("pk"))
        counts: Counter[str] = Counter()
        for languages, listings in rows:
            counts.update(dict.fromkeys(languages, listings))
        return [
            self._choice("language", code, language_name(code), count, code == self.language)
            for code, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
        ]

    def _kinds(self) -> list[Choice]:
        rows = self._found(kind="").order_by().values_list("current_version__kind").annotate(listings=Count("pk"))
        counts = dict(rows)
        return [self._choice("kind", kind, label, counts[kind], kind == self.kind) for kind, label in KINDS.items() if counts.get(kind)]

    def _prices(self) -> list[Choice]:
        free = self._choice("free", "1", _("Free"), self._found(free=True).order_by().count(), self.free)
        return [free] if free.count or free.is_set else []

    @cached_property
    def active(self) -> list[Choice]:
        """The filters that are set, to be shown and removed."""
        chosen: list[tuple[str, str | Promise]] = []
        if self.use_case:
            use_case = UseCase.objects.filter(slug=self.use_case).first()
            chosen.append(("use_case", use_case.name if use_case else self.use_case))
        if self.language:
            chosen.append(("language", language_name(self.language)))
        if self.kind:
            chosen.append(("kind", KINDS[self.kind]))
        if self.free:
            chosen.append(("free", _("Free")))
        return [Choice(label, 0, self.address(**{name: ""}), True) for name, label in chosen]

    @property
    def sorts(self) -> list[tuple[str, str | Promise, bool]]:
        return [(name, label, name == self.sort) for name, label in SORTS.items()]

    @property
    def without_filters(self) -> str:
        return "?" + urlencode({"q": self.q}) if self.q else "?"

    @property
    def hidden_fields(self) -> list[tuple[str, str]]:
        """What the search form carries along."""
        fields = [("use_case", self.use_case), ("language", self.language), ("kind", self.kind), ("free", "1" if self.free else "")]
        return [(name, value) for name, value in fields if value]
