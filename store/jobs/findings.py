"""What the check of a data file found in its texts, in the reader's language: lengths, scripts, harm, and who is mentioned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.utils.formats import number_format
from django.utils.functional import Promise
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from store.jobs.formats import CONTAINERS, FORMATS

KINDS: dict[str, str | Promise] = {
    "email": _("E-mail addresses"),
    "telephone": _("Telephone numbers"),
    "credit_card": _("Credit card numbers"),
    "ip_address": _("IP addresses"),
    "aws_key": _("AWS keys"),
    "github_token": _("GitHub tokens"),
    "private_key": _("Private keys"),
    "store_key": _("Keys of this store"),
    "service_key": _("Keys of other services"),
}

SCRIPTS: dict[str, str | Promise] = {
    "latin": _("Latin"),
    "han": _("Chinese characters"),
    "kana": _("Kana"),
    "hangul": _("Hangul"),
    "cyrillic": _("Cyrillic"),
    "greek": _("Greek"),
    "arabic": _("Arabic"),
    "hebrew": _("Hebrew"),
    "devanagari": _("Devanagari"),
    "bengali": _("Bengali"),
    "tamil": _("Tamil"),
    "telugu": _("Telugu"),
    "thai": _("Thai"),
    "georgian": _("Georgian"),
    "armenian": _("Armenian"),
    "ethiopic": _("Ethiopic"),
    "bopomofo": _("Bopomofo"),
}

AXES: dict[str, str | Promise] = {
    "gender": _("Gender"),
    "religion": _("Religion"),
    "nationality": _("Nationality"),
    "age": _("Age"),
    "disability": _("Disability"),
    "orientation": _("Orientation"),
}

GROUPS: dict[str, str | Promise] = {
    "women": _("women"),
    "men": _("men"),
    "gender_minorities": _("gender minorities"),
    "christians": _("Christians"),
    "muslims": _("Muslims"),
    "jews": _("Jews"),
    "buddhists": _("Buddhists"),
    "hindus": _("Hindus"),
    "non_believers": _("non-believers"),
    "americans": _("Americans"),
    "britons": _("Britons"),
    "chinese": _("Chinese people"),
    "french": _("French people"),
    "germans": _("Germans"),
    "indians": _("Indians"),
    "japanese": _("Japanese people"),
    "koreans": _("Koreans"),
    "mexicans": _("Mexicans"),
    "nigerians": _("Nigerians"),
    "russians": _("Russians"),
    "ukrainians": _("Ukrainians"),
    "children": _("children"),
    "old_people": _("old people"),
    "disabled_people": _("disabled people"),
    "straight_people": _("straight people"),
    "gay_people": _("gay people"),
}


@dataclass(frozen=True)
class Bar:
    name: str | Promise
    count: int
    width: str  # of the longest possible bar, as an SVG length
    percent: str  # of all


@dataclass(frozen=True)
class Finding:
    kind: str | Promise
    count: int
    lines: str


@dataclass(frozen=True)
class Overlap:
    """Of what is held out, how much is trained on all the same."""

    held_out: int
    exact: int
    near: int
    lines: str


class Contents:
    """The part of a validation's report that tells what the texts are like. A report may lack any of it."""

    def __init__(self, report: Mapping[str, Any]) -> None:
        self._report = report

    @property
    def format(self) -> str | Promise:
        return FORMATS.get(self._report.get("format", ""), "")

    @property
    def container(self) -> str | Promise:
        return CONTAINERS.get(self._report.get("container", ""), "")

    @property
    def lengths(self) -> list[Bar]:
        found = self._report.get("lengths") or []
        return _bars([(gettext("up to %(tokens)s") % {"tokens": number_format(upto, force_grouping=True)}, count) for upto, count in found])

    @property
    def scripts(self) -> list[Bar]:
        return _bars([(SCRIPTS.get(script, script), letters) for script, letters in self._ordered_scripts()])

    def _ordered_scripts(self) -> list[tuple[str, int]]:
        found = self._report.get("scripts") or {}
        return sorted(found.items(), key=lambda item: -item[1])  # JSON in a database does not keep an order

    @property
    def searched(self) -> bool:
        """Whether there were texts to look into: in a file that could not be read as what it should be, there are none."""
        return bool(self._report.get("findings")) and bool(self._report.get("examples") or self.findings)

    @property
    def findings(self) -> list[Finding]:
        return [
            Finding(KINDS.get(found["kind"], found["kind"]), found["count"], _listed(found["lines"]))
            for found in self._report.get("findings") or []
            if found["count"]
        ]

    @property
    def overlap(self) -> Overlap | None:
        """Nothing where nothing is held out, and in reports from before it was looked at."""
        found = self._report.get("overlap") or {}
        if not found.get("held_out"):
            return None
        return Overlap(found["held_out"], found["exact"], found["near"], _listed(found["lines"]))

    @property
    def mentions(self) -> list[tuple[str | Promise, list[tuple[str | Promise, int]]]]:
        """(axis, [(group, mentions)]) of the axes on which anybody is mentioned: who is not stands there with 0."""
        axes = self._report.get("mentions") or {}
        return [
            (name, [(said, axes[axis][group]) for group, said in GROUPS.items() if group in axes[axis]])
            for axis, name in AXES.items()
            if any(axes.get(axis, {}).values())
        ]


def counts(report: Mapping[str, Any]) -> dict[str, Any]:
    """What of the report goes on with the versions made of the data: counts alone, of what there is any."""
    found = {name: report[name] for name in ("examples", "tokens", "duplicates", "near_duplicates", "scripts") if report.get(name)}
    overlap = {name: count for name, count in (report.get("overlap") or {}).items() if name != "lines" and count}
    findings = {finding["kind"]: finding["count"] for finding in report.get("findings") or [] if finding["count"]}
    mentions = {axis: groups for axis, groups in (report.get("mentions") or {}).items() if any(groups.values())}
    named = {"overlap": overlap, "findings": findings, "mentions": mentions}
    return found | {name: value for name, value in named.items() if value}


def _bars(counted: Sequence[tuple[str | Promise, int]]) -> list[Bar]:
    most, whole = max((count for _name, count in counted), default=0), sum(count for _name, count in counted)
    return [Bar(name, count, f"{100 * count / most:.1f}%", _share(count, whole)) for name, count in counted if most]


def _share(count: int, whole: int) -> str:
    percent = 100 * count / whole
    return "<1%" if 0 < percent < 1 else f"{percent:.0f}%"


def _listed(lines: Sequence[int]) -> str:
    return ", ".join(map(str, lines))  # ungrouped: beside “, ” a sign within the numbers is misread
