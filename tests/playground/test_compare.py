"""Several GPTs side by side."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.test import Client

from store.accounts.models import User
from store.catalog.models import Version
from tests import making

pytestmark = pytest.mark.django_db
PAGE = "/en/chat/compare/"


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
