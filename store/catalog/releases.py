"""What becomes of a version once it is submitted: sealed by digest, then released or refused, and at any time suspended.

Every change is one conditional update from the state it needs, so of two people only one can win. Moderation calls these.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from django.db import transaction
from django.utils import timezone

from store.catalog import search
from store.catalog.errors import BaseUnavailable, Sealed
from store.catalog.models import Listing, Version
from store.errors import Conflict

State = Version.State


def content(version: Version) -> dict[str, Any]:
    """Everything that decides what the version answers, and what was said of it when it was submitted."""
    return {
        "listing": version.listing.public_id,
        "number": version.number,
        "kind": version.kind,
        "base": [version.base.public_id, version.base.digest] if version.base else None,
        "artifact": version.artifact.digest if version.artifact else None,
        "instructions": version.instructions,
        "starters": version.starters,
        "parameters": version.parameters,
        "facts": version.facts,
        "change_log": version.change_log,
        "made_by": version.made_by,
    }


def content_digest(version: Version) -> str:
    """sha256 over the canonical JSON of `content`."""
    return hashlib.sha256(json.dumps(content(version), sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def seal(version: Version) -> Version:
    """DRAFT → SEALED under the digest of what it holds now. Raises Sealed when it is no draft any more."""
    with transaction.atomic():
        current = Version.objects.select_for_update(of=("self",)).select_related("listing", "base", "artifact").get(pk=version.pk)
        values = {"state": State.SEALED, "digest": content_digest(current), "sealed_at": timezone.now()}
        if not Version.objects.filter(pk=version.pk, state=State.DRAFT).update(**values):
            raise Sealed
    version.refresh_from_db()
    return version


def release(version: Version) -> None:
    """SEALED → RELEASED, if it is still what was sealed and every ancestor is available."""
    current = Version.objects.select_related("listing", "base", "artifact").get(pk=version.pk)
    if content_digest(current) != current.digest:
        raise Conflict
    if not Version.objects.intact().filter(pk=version.pk).exists():
        raise BaseUnavailable
    _move(version, State.SEALED, State.RELEASED, released_at=timezone.now(), terms=terms_of(current.listing))


def terms_of(listing: Listing) -> dict[str, Any]:
    """What a version is kept to have been released under: its publisher may ask another price later."""
    return {name: getattr(listing, name) for name in ("licence", "input_price_micro", "output_price_micro")}


def refuse(version: Version) -> None:
    """SEALED → REFUSED: it is answered by a new version."""
    _move(version, State.SEALED, State.REFUSED)


def withdraw(version: Version) -> None:
    """SEALED → YANKED: its publisher took it back before it was decided."""
    _move(version, State.SEALED, State.YANKED)


def suspend(version: Version) -> None:
    """RELEASED → SUSPENDED: from now on neither it nor whatever builds on it answers anybody."""
    with transaction.atomic():
        _move(version, State.RELEASED, State.SUSPENDED)
        search.recheck(version.listing)


def restore(version: Version) -> None:
    """SUSPENDED → RELEASED."""
    with transaction.atomic():
        _move(version, State.SUSPENDED, State.RELEASED)
        search.recheck(version.listing)


def _move(version: Version, expected: State, state: State, **fields: Any) -> None:
    if not Version.objects.filter(pk=version.pk, state=expected).update(state=state, **fields):
        raise Conflict
    version.refresh_from_db(fields=["state", *fields])
