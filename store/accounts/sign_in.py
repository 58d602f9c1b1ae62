"""What else happens when somebody signs in or signs up: higher apps add to it in `AppConfig.ready`."""

from __future__ import annotations

from collections.abc import Callable

from store.accounts.models import User

_on_sign_in: list[Callable[[User, str], None]] = []


def on_sign_in(function: Callable[[User, str], None]) -> None:
    """Calls `function(user, visitor)` whenever a person signs in; `visitor` is who they were before, "" when nobody."""
    if function not in _on_sign_in:
        _on_sign_in.append(function)


def signed_in(user: User, visitor: str) -> None:
    for function in _on_sign_in:
        function(user, visitor)
