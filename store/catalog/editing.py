"""Two people at one draft: the second to save is told, keeps what they wrote, and gets the first one's changes where they do not clash.

A form remembers by fingerprints what it was opened on. From them, what is stored now and what was typed it follows, field by
field, who changed what since; the text it was opened on itself need not be kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext_lazy as _

from store.errors import Conflict


@dataclass(frozen=True)
class Merge:
    values: dict[str, Any]  # what to go on with: one's own text where both changed a field
    theirs: dict[str, Any]  # what is stored now
    clashing: tuple[str, ...]  # fields that both changed


class EditedMeanwhile(Conflict):
    """`merge` says what to go on with."""

    code = "edited_meanwhile"
    message = _("Somebody else saved this draft while you wrote. Nothing of either is lost: look through it and save again.")

    def __init__(self, merge: Merge) -> None:
        super().__init__()
        self.merge = merge


def fingerprints(values: Mapping[str, Any]) -> str:
    """`name=fingerprint` of each field, for a hidden field of a form."""
    return " ".join(f"{name}={_fingerprint(value)}" for name, value in values.items())


def require_unchanged(seen: str | None, *, theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> None:
    """Raises EditedMeanwhile unless what is stored now is what a form saw (None: it looked at nothing) or what it would store."""
    if seen is None:
        return
    was = dict(part.partition("=")[::2] for part in seen.split())
    changed = [name for name in mine if theirs[name] != mine[name] and _fingerprint(theirs[name]) != was.get(name)]
    if changed:
        raise EditedMeanwhile(_merge(was, theirs, mine, changed))


def _merge(was: Mapping[str, str], theirs: Mapping[str, Any], mine: Mapping[str, Any], changed: list[str]) -> Merge:
    clashing = tuple(name for name in changed if _fingerprint(mine[name]) != was.get(name))
    taken = {name: theirs[name] for name in changed if name not in clashing}
    return Merge(values={**mine, **taken}, theirs=dict(theirs), clashing=clashing)


def _fingerprint(value: Any) -> str:
    """64 bits of sha256 over its canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
