"""What changed from one version of a GPT to another, as far as everybody may know it: nobody is told a prompt GPT's instructions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from store.billing.prices import Price
from store.catalog import downloads
from store.catalog.models import Measurement, Version
from store.jobs import suites
from store.pages.figures import number, offer, signed
from store.playground.parameters import KNOBS

FILES_TOLD = 12  # of those that differ
NONE = "–"
PARAMETERS: dict[str, str | Promise] = {
    **{knob.name: knob.label for knob in KNOBS},
    "presence_penalty": gettext_lazy("Presence penalty"),
    "stop": gettext_lazy("Stops at"),
}
FACTS: dict[str, str | Promise] = {
    "architecture": gettext_lazy("Architecture"),
    "parameters": gettext_lazy("Parameters"),
    "context_length": gettext_lazy("Context in tokens"),
    "dtype": gettext_lazy("Numbers in the files"),
    "rank": gettext_lazy("Rank of the adapter"),
}


@dataclass(frozen=True)
class Change:
    """One thing that is not what it was; lines of texts stand under each other."""

    label: str | Promise
    old: str
    new: str
    is_digest: bool = False


@dataclass(frozen=True)
class MeasuredChange:
    """A number of both versions, measured on the same items."""

    label: str
    old: str
    new: str
    delta: str
    verdict: str  # up | down, by what is better; same where the intervals meet
    unit: str


def differences(old: Version, new: Version) -> list[Change]:
    """Kind, base, files by their sha256, settings, starters, and, of two that were released, licence and price."""
    changes = [*_configured(old, new), *_files(old, new)]
    if old.instructions != new.instructions:
        told = _("only its publisher sees them")
        changes.append(Change(_("Instructions"), told if old.instructions else NONE, _("changed") if new.instructions else NONE))
    changes += _differing({_("Conversation starters"): _lines(old.starters)}, {_("Conversation starters"): _lines(new.starters)})
    changes += _differing(_settings(old), _settings(new))
    if old.terms and new.terms:
        changes += _differing(_terms(old.terms), _terms(new.terms))
    return changes


def measured(old: Version, new: Version) -> list[MeasuredChange]:
    """One number of each suite that both were measured on, item by item the same. Both come with their measurements."""
    before = {row.name: row for row in old.measurements.all()}
    pairs = [(before[row.name], row) for row in suites.headlines(new.measurements.all()) if row.name in before]
    return [_compared(was, now) for was, now in pairs if was.method.get("suite_sha256") == now.method.get("suite_sha256")]


def _compared(old: Measurement, new: Measurement) -> MeasuredChange:
    decimals = 1 if max(abs(old.value), abs(new.value)) >= 10 else 2
    better = (new.value < old.value) == new.lower_is_better
    told = suites.parts_of(new.name)[1] not in suites.NEITHER_IS_BETTER and not intervals_meet(old, new)
    verdict = ("up" if better else "down") if told else "same"
    unit = new.unit if new.unit != new.name else ""
    shown = (with_margin(old, decimals), with_margin(new, decimals))
    return MeasuredChange(suites.label_of(new.name), *shown, signed(new.value - old.value, decimals), verdict, unit)


def intervals_meet(one: Measurement, other: Measurement) -> bool:
    """Whether their 95 % intervals have a value in common, so that the difference may be chance."""
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return one.value == other.value
    return one.low <= other.high and other.low <= one.high


def with_margin(measurement: Measurement, decimals: int) -> str:
    """31.4 ± 1.1"""
    shown = number(measurement.value, decimals)
    if measurement.low is None or measurement.high is None:
        return shown
    return f"{shown} ± {number((measurement.high - measurement.low) / 2, decimals)}"


def _configured(old: Version, new: Version) -> list[Change]:
    return _differing(
        *({_("Kind"): str(one.get_kind_display()), _("Base"): one.base.full_name if one.base else NONE} for one in (old, new))
    )


def _files(old: Version, new: Version) -> list[Change]:
    """The whole by its digest, then each file that is another one."""
    if old.artifact == new.artifact:
        return []
    was, now = (one.artifact.digest if one.artifact else NONE for one in (old, new))
    before, after = ({file.path: file.sha256 for file in downloads.files_of(one)} for one in (old, new))
    return [Change(_("Files, sha256 of all"), was, now, is_digest=True), *_differing(before, after, is_digest=True)[:FILES_TOLD]]


def _settings(version: Version) -> dict[str, str]:
    facts = {str(label): _plain(version.facts[name]) for name, label in FACTS.items() if name in version.facts}
    return facts | {str(label): _plain(version.parameters[name]) for name, label in PARAMETERS.items() if name in version.parameters}


def _terms(terms: Mapping[str, Any]) -> dict[str, str]:
    asked = Price(int(terms.get("input_price_micro", 0)), int(terms.get("output_price_micro", 0)))
    return {_("Licence"): str(terms.get("licence", "")), _("Price its publisher asks"): offer(asked)}


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return _lines(value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return number(value) if is_number else str(value)


def _lines(texts: Any) -> str:
    return "\n".join(map(str, texts)) or NONE


def _differing(old: Mapping[str, str], new: Mapping[str, str], *, is_digest: bool = False) -> list[Change]:
    rows = [(label, old.get(label, NONE), new.get(label, NONE)) for label in dict.fromkeys([*new, *old])]
    return [Change(*row, is_digest=is_digest) for row in rows if row[1] != row[2]]
