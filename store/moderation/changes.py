"""What a submission changes against what was approved before: texts line by line, configuration and measured numbers."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.utils.formats import number_format
from django.utils.functional import Promise
from django.utils.translation import gettext as _

from store.catalog.models import ListingRevision, Measurement, Version
from store.jobs import suites
from store.moderation.models import Submission

CONTEXT_LINES = 2
_WORDS = re.compile(r"\s+|[A-Za-z0-9]+|.")


@dataclass(frozen=True)
class Line:
    kind: str  # "" (the same), "add", "del" or "gap"
    old: int | None = None  # line number
    new: int | None = None
    parts: tuple[tuple[bool, str], ...] = ()  # (changed within the line, text)
    skipped: int = 0  # lines a gap stands for


@dataclass(frozen=True)
class Diff:
    title: str | Promise
    language: str  # of the text, or ""
    lines: list[Line]

    @property
    def added(self) -> int:
        return sum(line.kind == "add" for line in self.lines)

    @property
    def removed(self) -> int:
        return sum(line.kind == "del" for line in self.lines)


@dataclass(frozen=True)
class Row:
    """One row of "metrics and configuration"; `verdict` is up, down, same or "" where there is nothing to judge."""

    label: str | Promise
    old: str
    new: str
    change: str | Promise = ""
    verdict: str = ""


LANGUAGES = {"en": "English", "zh-hans": "中文"}


def approved_before(submission: Submission) -> Version | None:
    """The version that stood before this one: the current one of the listing, unless that is this one."""
    earlier = Version.objects.filter(listing=submission.listing, released_at__isnull=False)
    if submission.version is not None:
        earlier = earlier.filter(pk__lt=submission.version.pk)
    return earlier.select_related("base__listing__publisher", "artifact").order_by("-released_at").first()


def text_diffs(submission: Submission, before: Version | None) -> list[Diff]:
    """Of each language of the texts, and of a prompt GPT's instructions and starters. Unchanged ones are left out."""
    diffs = []
    if submission.revision is not None:
        old, new = _documents(_revision_before(submission)), _documents(submission.revision)
        known = [code for code in LANGUAGES if code in old or code in new]
        diffs += [Diff(LANGUAGES[code], code, line_diff(old.get(code, ""), new.get(code, ""))) for code in known]
    version = submission.version
    if version is not None and version.kind == Version.Kind.PROMPT:
        before_prompt = before if before is not None and before.kind == Version.Kind.PROMPT else None
        diffs.append(Diff(_("Instructions"), "", line_diff(before_prompt.instructions if before_prompt else "", version.instructions)))
        starters = "\n".join(before_prompt.starters) if before_prompt else ""
        diffs.append(Diff(_("Conversation starters"), "", line_diff(starters, "\n".join(version.starters))))
    return [diff for diff in diffs if diff.added or diff.removed]


def config_rows(version: Version, before: Version | None) -> list[Row]:
    """Everything that is not text: kind, base, files, facts and default parameters."""
    old, new = _config(before) if before else {}, _config(version)
    rows = []
    for label in [*new, *(label for label in old if label not in new)]:
        was, now = old.get(label, "–"), new.get(label, "–")
        rows.append(Row(label, was if before else "", now, "" if before is None or was == now else _("changed")))
    return rows


def metric_rows(version: Version, before: Version | None) -> list[Row]:
    """Measured numbers beside those of the version before, or beside the base's when there is none before."""
    earlier = {m.name: m for m in before.measurements.all()} if before else {}
    rows = []
    for measured in suites.in_order(version.measurements.all()):
        old = earlier.get(measured.name)
        reference = old.value if old else measured.base_value
        shown = format_interval(old) if old else "–" if reference is None else _number(reference)
        change, verdict = _judge(measured, reference)
        rows.append(Row(suites.label_of(measured.name), shown, format_interval(measured), change, verdict))
    return rows


def line_diff(old: str, new: str) -> list[Line]:
    """Lines of both texts in order; changed pairs show the words that differ, long unchanged runs become a gap."""
    before, after = old.splitlines(), new.splitlines()
    lines: list[Line] = []
    opcodes = difflib.SequenceMatcher(a=before, b=after, autojunk=False).get_opcodes()
    for position, (tag, i1, i2, j1, j2) in enumerate(opcodes):
        if tag == "equal":
            lines += _unchanged(before[i1:i2], i1, j1, first=position == 0, last=position == len(opcodes) - 1)
        elif tag == "replace" and i2 - i1 == j2 - j1:
            for offset in range(i2 - i1):
                removed, added = _word_diff(before[i1 + offset], after[j1 + offset])
                lines.append(Line("del", old=i1 + offset + 1, parts=removed))
                lines.append(Line("add", new=j1 + offset + 1, parts=added))
        else:
            lines += [Line("del", old=i + 1, parts=((False, before[i]),)) for i in range(i1, i2)]
            lines += [Line("add", new=j + 1, parts=((False, after[j]),)) for j in range(j1, j2)]
    return lines


def format_interval(measured: Measurement) -> str:
    """31.4 ± 1.1"""
    if measured.low is None or measured.high is None:
        return _number(measured.value)
    return f"{_number(measured.value)} ± {_number((measured.high - measured.low) / 2)}"


def _unchanged(run: list[str], old: int, new: int, *, first: bool, last: bool) -> Iterator[Line]:
    head = 0 if first else CONTEXT_LINES
    tail = 0 if last else CONTEXT_LINES
    hidden = len(run) - head - tail
    for i, text in enumerate(run):
        if hidden > 1 and head <= i < len(run) - tail:
            if i == head:
                yield Line("gap", skipped=hidden)
            continue
        yield Line("", old=old + i + 1, new=new + i + 1, parts=((False, text),))


_Parts = tuple[tuple[bool, str], ...]


def _word_diff(old: str, new: str) -> tuple[_Parts, _Parts]:
    a, b = _WORDS.findall(old), _WORDS.findall(new)
    removed, added = [], []
    for tag, i1, i2, j1, j2 in difflib.SequenceMatcher(a=a, b=b, autojunk=False).get_opcodes():
        changed = tag != "equal"
        removed += [(changed, "".join(a[i1:i2]))] if i2 > i1 else []
        added += [(changed, "".join(b[j1:j2]))] if j2 > j1 else []
    return tuple(removed), tuple(added)


def _documents(revision: ListingRevision | None) -> dict[str, str]:
    """Of each language, the text as one document: name, summary, an empty line, the description."""
    texts = revision.texts.all() if revision else []
    return {text.language: f"{text.name}\n{text.summary}\n\n{text.card}".rstrip() for text in texts}


def _revision_before(submission: Submission) -> ListingRevision | None:
    """The live one; for what was decided long ago, the one that was approved before it."""
    assert submission.revision is not None
    approved = ListingRevision.State.LIVE, ListingRevision.State.SUPERSEDED
    earlier = ListingRevision.objects.filter(listing=submission.listing, state__in=approved, pk__lt=submission.revision.pk)
    return earlier.order_by("-pk").first()


def _config(version: Version) -> dict[str, str]:
    shown = {_("Kind"): str(version.get_kind_display()), _("Built on"): version.base.full_name if version.base else "–"}
    if version.artifact is not None:
        shown[_("Files")] = version.artifact.digest[:12]
        shown[_("Size in bytes")] = number_format(version.artifact.size_bytes, force_grouping=True)
    for name, value in sorted((version.facts | version.parameters).items()):
        shown[name] = _plain(value)
    return shown


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(_plain(item) for item in value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return number_format(value, force_grouping=isinstance(value, int))


def _judge(measured: Measurement, reference: float | None) -> tuple[str, str]:
    if reference is None:
        return "", ""
    difference = measured.value - reference
    shown = ("+" if difference > 0 else "") + _number(difference)
    margin = (measured.high - measured.low) / 2 if measured.low is not None and measured.high is not None else 0.0
    if abs(difference) <= margin:
        return _("%(difference)s, within the interval") % {"difference": shown}, "same"
    return shown, "up" if (difference < 0) == measured.lower_is_better else "down"


def _number(value: float) -> str:
    decimals = 2 if abs(value) < 100 else 1
    return number_format(round(value, decimals), decimals, force_grouping=True).replace("-", "−")  # number_format cuts off
