"""The history of a GPT: each version with its change log and what changed since the one before."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from store.catalog import listings
from store.catalog.models import Listing, Version
from store.pages import version_changes
from tests import making
from tests.pages.test_measured import measure

pytestmark = pytest.mark.django_db


@pytest.fixture
def base() -> Version:
    return making.make_base(slug="small-base")


def address(listing: Listing, language: str = "en") -> str:
    return f"/{language}/gpts/{listing.full_name}/versions/"


def told(old: Version, new: Version) -> dict[str, tuple[str, str]]:
    return {str(change.label): (change.old, change.new) for change in version_changes.differences(old, new)}


def test_settings_starters_base_licence_and_price_are_told_and_instructions_never(client: Client, base: Version) -> None:
    first = making.make_prompt(base, parameters={"temperature": 0.2}, instructions="The first secret.")
    listing, owner = first.listing, making.owner_of(first.listing.publisher)
    listings.set_prices(owner, listing, input_price_micro=100_000, output_price_micro=200_000)
    other = making.make_base(slug="other-base")
    kept = {"parameters": {"temperature": 0.7, "stop": ["END"]}, "starters": ["Who are you?"], "instructions": "The second secret."}
    second = making.make_prompt(other, listing, number="1.1.0", change_log="Warmer.\nStops in time.", **kept)

    page = client.get(address(listing)).text

    assert told(first, second) == {
        "Base": (base.full_name, other.full_name),
        "Instructions": ("only its publisher sees them", "changed"),
        "Conversation starters": ("What is a token?", "Who are you?"),
        "Temperature": ("0.2", "0.7"),
        "Stops at": ("–", "END"),
        "Price its publisher asks": ("Free", "$0.10 in, $0.20 out / 1M tokens"),
    }
    assert second.terms == {"licence": "Apache-2.0", "input_price_micro": 100_000, "output_price_micro": 200_000}
    assert "secret" not in page
    assert "Warmer.\nStops in time." in page
    assert page.index('id="v1.1.0"') < page.index('id="v1.0.0"')
    assert "The first version." in page
    assert "温度" in client.get(address(listing, "zh-hans")).text


def test_each_file_that_is_another_one_is_named_with_its_sha256(base: Version) -> None:
    listing = making.make_listing()
    owner = making.owner_of(listing.publisher)
    made = []
    for number, weights in (("1.0.0", b"old"), ("1.1.0", b"new")):
        artifact = making.make_artifact(**{"config_json": b"{}", "adapter.safetensors": weights})
        made.append(making.release(making.publishing.create_adapter_version(owner, listing, number=number, base=base, artifact=artifact)))

    changes = version_changes.differences(*made)

    assert [(change.label, change.is_digest) for change in changes] == [("Files, sha256 of all", True), ("adapter.safetensors", True)]
    assert [len(change.new) for change in changes] == [64, 64]
    assert version_changes.differences(made[1], made[1]) == []


def test_numbers_are_compared_where_both_were_measured_on_the_same_items(base: Version) -> None:
    listing = making.make_listing()
    old, new = (making.make_adapter(base, listing, number=number) for number in ("1.0.0", "1.1.0"))
    for version, value in ((old, 30.0), (new, 41.0)):
        measure(version, "answer.f1", value, low=value - 2, high=value + 2, unit="%")
        measure(version, "chat.f1", value / 10, low=1.0, high=9.0, unit="%")
    measure(new, "code.acc_norm", 50.0)
    other_items = measure(old, "json.json_valid", 50.0)
    other_items.method["suite_sha256"] = "6" * 64
    other_items.save()
    measure(new, "json.json_valid", 90.0)

    found = {row.label: (row.old, row.new, row.delta, row.verdict) for row in version_changes.measured(old, new)}

    assert found == {
        "Answer questions: F1": ("30.0 ± 2.0", "41.0 ± 2.0", "+11.0", "up"),
        "Chat: F1": ("3.00 ± 4.00", "4.10 ± 4.00", "+1.10", "same"),
    }


def test_any_two_versions_stand_beside_each_other(client: Client, base: Version) -> None:
    first = making.make_prompt(base, parameters={"temperature": 0.2})
    for number in ("1.1.0", "1.2.0"):
        making.make_prompt(base, first.listing, number=number, parameters={"temperature": 0.9})

    page = client.get(address(first.listing), {"from": "1.0.0", "to": "1.2.0"}).text

    assert "From 1.0.0 to 1.2.0" in page
    for wrong in ({"from": "1.0.0", "to": "1.0.0"}, {"from": "9.9.9", "to": "1.0.0"}, {"from": "\x00", "to": "1" * 500}):
        answer = client.get(address(first.listing), wrong)
        assert answer.status_code == 200
        assert "Choose two different versions of this GPT." in answer.text


def test_a_draft_is_in_the_history_of_members_and_reviewers_only(client: Client, base: Version) -> None:
    live = making.make_prompt(base)
    making.draft_prompt(base, live.listing, number="2.0.0", change_log="Not yet.")

    assert "Not yet." not in client.get(address(live.listing)).text
    assert "cannot" not in client.get(address(live.listing), {"from": "1.0.0", "to": "2.0.0"}).text
    for user in (making.owner_of(live.listing.publisher), making.make_reviewer()):
        client.force_login(user)
        page = client.get(address(live.listing)).text
        assert "Not yet." in page
        assert "not released" in page


def test_a_long_history_goes_on_and_costs_the_same(client: Client, base: Version) -> None:
    listing = making.make_prompt(base).listing
    counts = []
    for minor in range(1, 13):
        making.make_prompt(base, listing, number=f"1.{minor}.0", parameters={"temperature": minor / 10})
        if minor in (10, 12):
            with CaptureQueriesContext(connection) as queries:
                page = client.get(address(listing))
            counts.append(len(queries))

    older = client.get(address(listing), {"before": page.context["before"]}).context["steps"]

    assert counts[0] == counts[1] <= 12
    assert [step.version.number for step in older] == ["1.2.0", "1.1.0", "1.0.0"]
    assert page.context["steps"][-1].before.number == "1.2.0"


def test_a_deprecated_version_says_so_and_why(base: Version, client: Client) -> None:
    listing = making.make_listing()
    old, _new = (making.make_adapter(base, listing, number=number) for number in ("1.0.0", "1.1.0"))
    making.publishing.deprecate(making.owner_of(listing.publisher), old, notice="Slower than 1.1.0.")

    page = client.get(address(listing)).text

    assert page.count("Slower than 1.1.0.") == 1
