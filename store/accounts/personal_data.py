"""Which tables hold something of a person: what an export gives them, and what becomes of it when they delete their account.

Every app says so of its own tables in `AppConfig.ready`. `tests/accounts/test_personal_data.py` fails for a table that points to
a person and was not named, so none is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from django.apps import apps
from django.db.models import Model, Q, QuerySet
from django.utils.functional import Promise

from store.accounts.models import User


@dataclass(frozen=True)
class Holding:
    """Rows of `model` that are a person's by `path`. With `kept`, the reason for it, they outlive the account, which then names nobody."""

    model: str  # "accounts.ApiKey"
    path: str = "user"
    kept: str | Promise = ""
    hidden: frozenset[str] = frozenset()  # what even its owner is not given: hashes, and what others wrote or decided
    where: Q = field(default_factory=Q)  # which of them
    part: str = ""  # what those are called, where the table has others too

    @property
    def table(self) -> type[Model]:
        return apps.get_model(self.model)

    @property
    def name(self) -> str:
        """Of its file in an export."""
        return ".".join(filter(None, (self.model.lower(), self.path, self.part)))

    def rows(self, user: User) -> QuerySet[Any]:
        manager = self.table._base_manager
        return manager.filter(self.where, **{self.path: user.pk}).order_by("pk")


_holdings: dict[str, Holding] = {}
_before_erasure: list[Callable[[User], None]] = []
_under_way: list[Callable[[User], bool]] = []


def declare(*holdings: Holding) -> None:
    for holding in holdings:
        _holdings[holding.name] = holding


def before_erasure(function: Callable[[User], None]) -> None:
    """Calls `function(user)` in the transaction that erases a person, before their rows go: where rows alone are not all."""
    if function not in _before_erasure:
        _before_erasure.append(function)


def waits_for(function: Callable[[User], bool]) -> None:
    """Nobody is erased while `function(user)` holds: something of theirs is under way that ends by itself."""
    if function not in _under_way:
        _under_way.append(function)


def holdings() -> list[Holding]:
    return list(_holdings.values())


def acts_before_erasure() -> Iterator[Callable[[User], None]]:
    return iter(_before_erasure)


def is_under_way(user: User) -> bool:
    return any(function(user) for function in _under_way)
