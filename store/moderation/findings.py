"""How checks are shown: failed and doubtful ones first and open, the finding in the reader's language, the evidence as rows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.utils.formats import number_format
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from store.moderation.models import Check

State = Check.State
NAMES = {
    "files": _("Files"),
    "loads": _("Loads"),
    "generates": _("Generates"),
    "perplexity": _("Quality beside its base"),
}
ORDER = {State.FAILED: 0, State.ERROR: 1, State.WARNED: 2, State.PENDING: 3, State.PASSED: 4}
VERDICTS = {  # class of the verdict, icon
    State.FAILED: ("bad", "x"),
    State.ERROR: ("warn", "alert"),
    State.WARNED: ("warn", "alert"),
    State.PENDING: ("", "clock"),
    State.PASSED: ("good", "check"),
}
MAX_TEXT_CHARS = 2000


@dataclass(frozen=True)
class Shown:
    check: Check
    name: str | Promise
    finding: str
    verdict: str
    icon: str
    is_open: bool
    facts: list[tuple[str, str]]  # short values of the evidence
    texts: list[tuple[str, str]]  # long ones, quoted


def shown(checks: Iterable[Check]) -> list[Shown]:
    """Failed first, then what could not be run, what needs a look, what is running, what passed."""
    return [_shown(check) for check in sorted(checks, key=lambda check: (ORDER[State(check.state)], check.pk))]


def counts(checks: Iterable[Check]) -> dict[str, int]:
    return dict(Counter(check.state for check in checks))


def _shown(check: Check) -> Shown:
    verdict, icon = VERDICTS[State(check.state)]
    facts, texts = _evidence(check.evidence)
    return Shown(
        check=check,
        name=NAMES.get(check.name, check.name),
        finding=sentence(check),
        verdict=verdict,
        icon=icon,
        is_open=check.state in (State.FAILED, State.ERROR, State.WARNED),
        facts=facts,
        texts=texts,
    )


def sentence(check: Check) -> str:
    """The finding by its code in the active language; one whose code is not known stays in English."""
    known = FINDINGS.get(check.code)
    if known is None:
        return check.finding or str(check.get_state_display())
    try:
        return str(known) % {name: _plain(value) for name, value in check.evidence.items() if isinstance(value, str | int | float)}
    except (KeyError, TypeError, ValueError):
        return check.finding


FINDINGS: dict[str, Promise] = {  # by code; they name values of the evidence
    "files_whole": _("%(files)s files, each with the size and sha256 of the manifest."),
    "files_corrupt": _("A file is not what the manifest says: %(reason)s"),
    "files_missing": _("Missing: %(missing)s."),
    "weights_load": _("%(tensors)s tensors, %(parameter_count)s parameters, all finite."),
    "base_unusable": _("The weights can't be used: %(reason)s"),
    "not_finite": _("The tensor %(tensor)s has numbers that are not finite."),
    "adapter_loads": _("Rank %(rank)s on %(projections)s projections, all numbers finite."),
    "adapter_unusable": _("The adapter can't be used: %(reason)s"),
    "adapter_changes_nothing": _("The adapter is zero: it changes nothing of its base."),
    "answers_given": _("All %(asked)s conversation starters were answered."),
    "answers_empty": _("%(empty)s of %(asked)s answers are empty."),
    "answers_repetitive": _("%(repetitive)s of %(asked)s answers repeat themselves."),
    "generation_failed": _("An answer failed: %(reason)s"),
    "refused": _("The engine refused a conversation starter: %(reason)s"),
    "perplexity_measured": _("Perplexity %(perplexity)s on plain English."),
    "perplexity_poor": _("Perplexity %(perplexity)s on plain English is poor."),
    "perplexity_kept": _("Perplexity %(perplexity)s, its base has %(base_perplexity)s."),
    "perplexity_worse": _("Perplexity %(perplexity)s, its base has %(base_perplexity)s: it lost some of what the base could."),
    "perplexity_much_worse": _("Perplexity %(perplexity)s, its base has %(base_perplexity)s: it broke what the base could."),
    "no_better_than_guessing": _("Perplexity %(perplexity)s: no better than guessing among its %(vocabulary)s tokens."),
    "weights_unchanged": _("Instructions leave the weights as they are: the perplexity is the base's."),
    "bad_result": _("The check gave no result that can be read."),
    "cancelled": _("The check was cancelled."),
}
LABELS: dict[str, Promise] = {  # of the evidence
    "files": _("Files"),
    "size_bytes": _("Size in bytes"),
    "manifest": _("Digest of the manifest"),
    "missing": _("Missing"),
    "reason": _("Reason"),
    "architecture": _("Architecture"),
    "tensors": _("Tensors"),
    "tensor": _("Tensor"),
    "parameters": _("Parameters"),
    "parameter_count": _("Parameters"),
    "base_parameters": _("Parameters of the base"),
    "context_length": _("Context length"),
    "rank": _("Rank"),
    "projections": _("Projections"),
    "asked": _("Asked"),
    "empty": _("Empty answers"),
    "repetitive": _("Repetitive answers"),
    "tokens_per_s": _("Tokens per second"),
    "prompt": _("Prompt"),
    "answer": _("Answer"),
    "ended": _("Ended"),
    "perplexity": _("Perplexity"),
    "base_perplexity": _("Perplexity of the base"),
    "low": _("Lower end of the interval"),
    "high": _("Upper end of the interval"),
    "times": _("Times the base's"),
    "vocabulary": _("Vocabulary"),
    "method": _("Method"),
    "base": _("Base"),
}


def _evidence(evidence: dict[str, Any]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    facts, texts = [], []
    for name, value in evidence.items():
        if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
            texts += [(_label(key), _text(part)) for row in value for key, part in row.items()]
        elif isinstance(value, list | dict) or len(str(value)) > 60:
            texts.append((_label(name), _text(value)))
        else:
            facts.append((_label(name), _plain(value)))
    return facts, texts


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_TEXT_CHARS else f"{text[:MAX_TEXT_CHARS]}…"


def _label(name: Any) -> str:
    return str(LABELS.get(str(name), name))


def _plain(value: Any) -> str:
    """A number as the reader writes it, anything else as text."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _text(value)
    return number_format(value, force_grouping=True).replace("-", "−")
