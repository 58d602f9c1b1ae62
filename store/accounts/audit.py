"""The audit log: who did which privileged act to what."""

from __future__ import annotations

from typing import Any

import structlog

from store.accounts.models import AuditEntry, User


def record(actor: User | None, action: str, target: str, **detail: Any) -> None:
    """Writes one entry, in the transaction of the act itself: an act that is undone leaves no entry.

    `actor` is None when the store acts by itself, `action` is "subject.verb", `target` a public id, `detail` JSON values.
    """
    request_id = str(structlog.contextvars.get_contextvars().get("request_id", ""))[:64]
    AuditEntry.objects.create(actor=actor, action=action, target=target, detail=detail, request_id=request_id)
