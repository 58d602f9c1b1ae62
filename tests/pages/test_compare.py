"""Several GPTs side by side."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.test import Client

from store.accounts.models import User
from store.catalog.models import Listing, Measurement, Version
from tests import making
from tests.pages.test_measured import measure

pytestmark = pytest.mark.django_db
PAGE = "/en/compare/"


def released(slug: str, **fields: Any) -> Version:
    listing = making.make_listing(making.make_publisher(slug=f"house-of-{slug}"), slug=slug)
    return making.make_prompt(making.make_base(slug=f"base-of-{slug}"), listing, **fields)


def shown(*names: str, client: Client | None = None) -> dict[str, Any]:
    answer = (client or Client()).get(PAGE, {"gpt": list(names)})
    assert answer.status_code == 200
    return {**{name: answer.context[name] for name in ("sides", "unknown", "offered")}, "page": answer.content.decode()}


def test_each_gpt_stands_beside_the_others_with_its_facts_and_a_way_to_ask_it() -> None:
    poet, critic = released("poet"), released("critic")

    found = shown(poet.listing.full_name, critic.full_name)

    assert [side.version for side in found["sides"]] == [poet, critic]
    for version in (poet, critic):
        assert f'data-model="{version.public_id}"' in found["page"]
        assert f'data-ask="/en/chat/try/{version.listing.full_name}/"' in found["page"]
    assert [parse_qs(urlsplit(side.without).query)["gpt"] for side in found["sides"]] == [[critic.full_name], [poet.listing.full_name]]


def test_a_gpt_named_twice_stands_there_once_and_no_more_than_four_do() -> None:
    names = [released(f"gpt-{number}").listing.full_name for number in range(5)]

    assert len(shown(names[0], names[0])["sides"]) == 1
    full = shown(*names)
    assert [side.name for side in full["sides"]] == names[:4]
    assert 'id="another"' not in full["page"]


def test_what_is_not_there_or_not_this_persons_is_said_without_a_difference() -> None:
    draft = making.draft_prompt(making.make_base())
    owner = Client()
    owner.force_login(User.objects.get(memberships__publisher=draft.listing.publisher, memberships__role="owner"))

    stranger, member = shown(draft.full_name, "no/body\0", "<b>"), shown(draft.full_name, client=owner)

    assert (stranger["sides"], stranger["unknown"]) == ([], [draft.full_name, "no/body\0", "<b>"])
    assert f"There is no GPT {draft.full_name}, or you may not use it." in stranger["page"]
    assert "<b>" not in stranger["page"]
    assert draft.listing.text().name not in stranger["page"]
    assert [side.version for side in member["sides"]] == [draft]


def test_one_with_a_price_asks_a_visitor_to_sign_in() -> None:
    dear = released("dear")
    dear.listing.input_price_micro = 2_000_000
    dear.listing.save()

    assert "data-send" not in shown(dear.full_name)["page"]
    signed_in = Client()
    signed_in.force_login(making.make_user())
    assert "data-send" in shown(dear.full_name, client=signed_in)["page"]


def test_others_are_offered_to_be_added_and_those_there_are_not() -> None:
    poet, critic = released("poet"), released("critic")

    offered = shown(poet.listing.full_name)["offered"]

    assert critic.listing.full_name in offered
    assert poet.listing.full_name not in offered


def test_the_page_of_a_gpt_leads_to_a_comparison_with_its_base() -> None:
    poet = released("poet")
    assert poet.base is not None

    page = Client().get(f"/en/gpts/{poet.listing.full_name}/").content.decode()

    pair = f"{PAGE}?gpt={poet.listing.full_name}&amp;gpt={poet.base.full_name}"
    assert pair.replace("@", "%40") in page
    assert len(shown(poet.listing.full_name, poet.base.full_name)["sides"]) == 2


def row(page: dict[str, Any], label: str) -> list[tuple[str, bool]]:
    (found,) = [row for _title, rows in page["groups"] for row in rows if row.label == label]
    return [(cell.text, cell.is_best) for cell in found.cells]


def compared(*versions: Version, **query: Any) -> dict[str, Any]:
    answer = Client().get(PAGE, {"gpt": [version.full_name for version in versions], **query})
    return {"groups": answer.context["groups"], "page": answer.content.decode(), "is_understood": answer.context["is_understood"]}


def test_the_price_is_computed_for_the_readers_own_volume() -> None:
    free, dear = released("free"), released("dear")
    Listing.objects.filter(pk=dear.listing_id).update(input_price_micro=2_000_000, output_price_micro=4_000_000)
    assert "Or once for 30 days" not in compared(free, dear)["page"]
    Listing.objects.filter(pk=dear.listing_id).update(monthly_price_micro=5_000_000, monthly_tokens=2_000_000)

    usual, own = compared(free, dear), compared(free, dear, read="3000000", written="500000")

    assert row(usual, "A month at your volume") == [("Free", True), ("$3.00", False)]
    assert row(own, "A month at your volume") == [("Free", True), ("$8.00", False)]
    assert row(usual, "Or once for 30 days") == [("–", False), ("$5.00", False)]
    assert 'name="read" type="number" min="0" max="1000000000000" step="1" inputmode="numeric" value="3000000"' in own["page"]


@pytest.mark.parametrize("asked", ["-1", "1e9", "x", "9" * 14, "1000000000001", "٣", "1\u200b", "0.5"])
def test_a_volume_that_is_none_is_said_to_be_none(asked: str) -> None:
    dear = released("dear")
    Listing.objects.filter(pk=dear.listing_id).update(output_price_micro=4_000_000)

    found = compared(dear, written=asked)

    assert not found["is_understood"]
    assert "A volume is a whole number of tokens" in found["page"]
    assert row(found, "A month at your volume") == [("$1.00", False)]
    assert compared(dear, written="")["is_understood"]


def test_measured_numbers_are_compared_on_the_same_items_alone() -> None:
    good, poor, other, unmeasured = (released(slug) for slug in ("good", "poor", "other", "unmeasured"))
    for version, value in ((good, 60.0), (poor, 40.0), (other, 90.0)):
        measure(version, "answer.f1", value, low=value - 1, high=value + 1, unit="%")
    Measurement.objects.filter(version=other).update(method={"suite_sha256": "6" * 64, "items": 40})

    found = compared(good, poor, other, unmeasured)

    assert row(found, "Answer questions: F1") == [("60.0 ± 1.0%", True), ("40.0 ± 1.0%", False), ("90.0 ± 1.0%", False), ("–", False)]
    assert "on other items" in found["page"]
    Measurement.objects.filter(version=poor).update(high=59.5)
    assert row(compared(good, poor), "Answer questions: F1")[0] == ("60.0 ± 1.0%", False)


def test_limits_licence_and_rights_stand_in_the_page_itself() -> None:
    poet, critic = released("poet"), released("critic")
    Listing.objects.filter(pk=critic.listing_id).update(licence="MIT", allow_download=True)

    found = compared(poet, critic)

    assert row(found, "Context") == [("8,192 tokens", False)] * 2
    assert row(found, "Licence") == [("Apache-2.0", False), ("MIT", False)]
    assert row(found, "Weights can be downloaded") == [("No", False), ("Yes", False)]
    assert 'data-label="Critic"><span>MIT</span>' in found["page"]


def test_the_address_from_before_leads_here() -> None:
    assert Client().get("/en/chat/compare/?gpt=a/b&gpt=c/d").headers["Location"] == f"{PAGE}?gpt=a/b&gpt=c/d"
