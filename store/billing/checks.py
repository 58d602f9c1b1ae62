"""Refuses to start with shares that can't be paid."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.checks import Error, register


@register()
def shares_are_percentages(**_: Any) -> list[Error]:
    wrong = [name for name in ("PLATFORM_SHARE_PERCENT", "ANCESTOR_SHARE_PERCENT") if not 0 <= getattr(settings, name) <= 100]
    return [Error(f"{name} must lie between 0 and 100.", id="billing.E001") for name in wrong]
