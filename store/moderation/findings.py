"""How checks are shown: failed and doubtful ones first and open, the finding in the reader's language, the evidence as rows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

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
        return str(known) % {name: value for name, value in check.evidence.items() if isinstance(value, str | int | float)}
    except (KeyError, TypeError, ValueError):
        return check.finding


FINDINGS: dict[str, Promise] = {
    "bad_result": _("The check gave no result that can be read."),
    "cancelled": _("The check was cancelled."),
}


def _evidence(evidence: dict[str, Any]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    facts, texts = [], []
    for name, value in evidence.items():
        if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
            texts += [(str(key), _text(part)) for row in value for key, part in row.items()]
        elif isinstance(value, list | dict) or len(str(value)) > 60:
            texts.append((name, _text(value)))
        else:
            facts.append((name, _text(value)))
    return facts, texts


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_TEXT_CHARS else f"{text[:MAX_TEXT_CHARS]}…"
