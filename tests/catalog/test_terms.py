"""Two people at the prices or the permissions of one GPT: the second to save is told, and merges."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.test import Client

from store.catalog.models import Listing
from tests import making

pytestmark = pytest.mark.django_db


@pytest.fixture
def listing() -> Listing:
    return making.make_prompt(listing=making.make_listing(input_price_micro=1_000_000, output_price_micro=1_000_000)).listing


@pytest.fixture
def editor(client: Client, listing: Listing) -> Client:
    client.force_login(making.owner_of(listing.publisher))
    return client


def seen_on(page: str, form: str) -> str:
    found = re.search(rf'{form}/">.*?name="seen" value="([^"]*)"', page, re.DOTALL)
    assert found
    return found[1]


def at(listing: Listing, act: str = "") -> str:
    return f"/en/studio/gpts/{listing.full_name}/{act}"


def prices(listing: Listing) -> tuple[int, int]:
    listing.refresh_from_db()
    return listing.input_price_micro // 1_000_000, listing.output_price_micro // 1_000_000


@pytest.mark.parametrize(
    ("theirs", "mine", "merged"),
    [
        ({"input_price": 2, "output_price": 1}, {"input_price": 1, "output_price": 3}, (2, 3)),  # different fields
        ({"input_price": 2, "output_price": 1}, {"input_price": 4, "output_price": 1}, (4, 1)),  # the same one: told, and one's own kept
    ],
)
def test_prices_saved_meanwhile_are_shown_and_merged(
    editor: Client, listing: Listing, theirs: dict[str, Any], mine: dict[str, Any], merged: tuple[int, int]
) -> None:
    opened = seen_on(editor.get(at(listing)).content.decode(), "prices")
    editor.post(at(listing, "prices/"), theirs | {"seen": opened})

    clash = editor.post(at(listing, "prices/"), mine | {"seen": opened})

    page = clash.content.decode()
    assert (clash.status_code, prices(listing)) == (409, (2, 1))
    assert f"{making.owner_of(listing.publisher).username} saved this while you wrote." in page
    assert ("You both changed what stands here." in page) == (merged == (4, 1))
    shown = {name: re.search(rf'name="{name}" value="(\d+)', page)[1] for name in mine}  # type: ignore[index]
    assert tuple(map(int, shown.values())) == merged
    again = editor.post(at(listing, "prices/"), shown | {"seen": seen_on(page, "prices")})
    assert (again.status_code, prices(listing)) == (302, merged)


def test_permissions_saved_meanwhile_are_shown_and_not_overwritten(editor: Client, listing: Listing) -> None:
    opened = seen_on(editor.get(at(listing)).content.decode(), "permissions")
    editor.post(at(listing, "permissions/"), {"allow_download": "on", "seen": opened})

    clash = editor.post(at(listing, "permissions/"), {"allow_finetune": "on", "seen": opened})

    page = clash.content.decode()
    listing.refresh_from_db()
    assert (clash.status_code, listing.allow_download, listing.allow_finetune) == (409, True, False)
    assert [f'name="{name}" checked' in page for name in ("allow_finetune", "allow_download")] == [True, True]
