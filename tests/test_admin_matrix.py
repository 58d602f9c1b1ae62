"""Who gets what of the admin: every model × every page of it × every role."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib import admin
from django.urls import reverse

from tests import access
from tests.access import ADMIN_LOGIN, ROLES, World
from tests.test_access_matrix import as_lines, row, said_or_written


@pytest.fixture
def world(db: None) -> World:
    return access.build_world()


# What an operator may make and delete by hand. Everything else is the outcome of an act and can only be looked at.
MADE_BY_HAND = frozenset({"group", "user", "publisher", "membership", "usecase", "tag", "emailaddress", "authenticator", "usersession"})
DELETED_BY_HAND = MADE_BY_HAND - {"user"}


def test_the_admin_is_for_staff_with_the_permission(world: World) -> None:
    wrong = {}
    for model, shown in admin.site._registry.items():
        name = model._meta.model_name or ""
        base = f"admin:{model._meta.app_label}_{name}"
        some = shown.get_queryset(None).first()  # of those that staff are shown at all
        paths = {page: reverse(f"{base}_{page}") for page in ("changelist", "add")}
        if some is not None:
            paths |= {page: reverse(f"{base}_{page}", args=[some.pk]) for page in ("change", "delete", "history")}
        refused = {"add": name not in MADE_BY_HAND, "delete": name not in DELETED_BY_HAND}
        for page, path in paths.items():
            if found := _admin_mismatches(world, path, operator=403 if refused.get(page) else 200):
                wrong[f"{base}_{page}"] = found

    assert not wrong, as_lines(wrong)
    for name in ("admin:index", "admin:password_change"):
        assert _admin_mismatches(world, reverse(name), operator=200, staff=200) == {}


def _admin_mismatches(world: World, path: str, *, operator: int, staff: int = 403) -> dict[str, Any]:
    got, wrong = {}, {}
    for role in ROLES:
        got[role], said, written = access.ask(world.clients[role], "GET", path)
        wrong |= said_or_written(role, got[role], said, written)
    return wrong | access.differences(row(ADMIN_LOGIN, staff=staff, operator=operator), got)
