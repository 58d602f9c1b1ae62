"""Licences: expressions of the SPDX list, and what is not on it."""

from __future__ import annotations

import pytest
from django.test import Client

from store.catalog import licences
from store.catalog.errors import InvalidListing
from tests import making


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("apache-2.0", "Apache-2.0"),
        (" MIT ", "MIT"),
        ("(mit OR apache-2.0)", "MIT OR Apache-2.0"),
        ("GPL-2.0-only WITH Classpath-exception-2.0", "GPL-2.0-only WITH Classpath-exception-2.0"),
        ("cc-by-nc-4.0", "CC-BY-NC-4.0"),
    ],
)
def test_an_expression_of_the_list_is_kept_as_spdx_writes_it(typed: str, kept: str) -> None:
    assert licences.cleaned(typed) == {"licence": kept, "licence_name": "", "licence_url": ""}


@pytest.mark.parametrize(
    "typed",
    [
        *("", "gemma", "Apache", "MIT AND", "MIT MIT", "(" * 50, "LicenseRef-scancode-a-star-logic-memoire-temp", "LicenseRef-mine"),
        *("MIT\u200b", "ＭＩＴ", "<b>MIT</b>", "MIT OR " * 20 + "MIT"),
    ],
)
def test_what_is_not_on_the_list_is_refused(typed: str) -> None:
    with pytest.raises(InvalidListing):
        licences.cleaned(typed)


def test_ones_own_licence_has_a_name_and_an_address() -> None:
    own = licences.cleaned("", name="Gemma  Terms of Use", url="https://example.org/terms")

    assert own == {
        "licence": "LicenseRef-gemma-terms-of-use",
        "licence_name": "Gemma Terms of Use",
        "licence_url": "https://example.org/terms",
    }
    assert licences.cleaned(own["licence"], name=own["licence_name"], url=own["licence_url"]) == own  # as what is made from it takes it
    for url in ("javascript:alert(1)", "http://example.org", "https://", "https://a b"):
        with pytest.raises(InvalidListing):
            licences.cleaned("", name="Mine", url=url)
    assert licences.imported("gemma")["licence"] == "LicenseRef-gemma"


def test_each_part_of_an_expression_is_linked_and_can_be_filtered_by(client: Client, db: None) -> None:
    both = making.make_prompt(listing=making.make_listing(licence="MIT OR Apache-2.0")).listing
    own = making.make_prompt(
        listing=making.make_listing(licence="", licence_name="House rules", licence_url="https://example.org/x")
    ).listing

    page = client.get(f"/en/gpts/{both.full_name}/").content.decode()
    assert 'href="https://spdx.org/licenses/MIT.html" rel="license noopener">MIT</a> OR <a' in page
    assert (
        'href="https://example.org/x" rel="license noopener">House rules</a>' in client.get(f"/en/gpts/{own.full_name}/").content.decode()
    )
    found = client.get("/en/explore/?licence=MIT").content.decode()
    assert both.full_name in found
    assert own.full_name not in found
