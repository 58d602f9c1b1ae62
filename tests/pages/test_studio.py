"""The studio: members make and change, strangers find nothing, members without the role change nothing."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from store.accounts.models import Publisher
from store.catalog.models import Listing, Version
from store.moderation.models import Submission
from store.pages.studio.making import next_number
from tests import making

pytestmark = pytest.mark.django_db


@pytest.fixture
def base() -> Version:
    return making.make_base(slug="small-base")


@pytest.fixture
def draft(base: Version) -> Version:
    return making.draft_prompt(base)


def new_gpt(on: Version, **changes: Any) -> dict[str, Any]:
    fields = {
        "slug": "plain-mail",
        "base": on.public_id,
        "instructions": "Write a short, polite e-mail.",
        "starters": "Ask for a day off\n\n  Thank a colleague  ",
        "temperature": "0.3",
        "name_en": "Plain Mail",
        "summary_en": "Short e-mails from bullet points.",
        "use_cases": ["write"],
        "languages": ["en"],
        "licence": "Apache-2.0",
        "input_price": "0.05",
        "output_price": "0.1",
    }
    return {**fields, **changes}


def screens(listing: Listing) -> list[tuple[str, str]]:
    at = f"/en/studio/gpts/{listing.full_name}/"
    number = listing.versions.get().number
    return [
        ("get", f"/en/studio/publishers/{listing.publisher.slug}/new/"),
        ("get", f"{at}texts/"),
        ("get", f"{at}versions/"),
        ("get", f"{at}versions/{number}/"),
        ("post", f"{at}prices/"),
        ("post", f"{at}permissions/"),
        ("post", f"{at}visibility/"),
        ("post", f"{at}submit/"),
        ("post", f"{at}withdraw/"),
        ("post", f"{at}versions/{number}/current/"),
        ("post", f"{at}versions/{number}/delete/"),
    ]


def test_a_publisher_makes_a_gpt_from_instructions(client: Client, base: Version) -> None:
    owner = making.make_user()
    client.force_login(owner)

    made = client.post("/en/studio/new-publisher/", {"name": "Harbour Works", "slug": "harbour-works", "kind": "person", "about": ""})
    saved = client.post("/en/studio/publishers/harbour-works/new/", new_gpt(base))

    assert made["Location"] == "/en/studio/publishers/harbour-works/"
    assert saved["Location"] == "/en/studio/gpts/harbour-works/plain-mail/"
    listing = Listing.objects.get(slug="plain-mail")
    assert (listing.visibility, listing.input_price_micro, listing.output_price_micro) == ("draft", 50_000, 100_000)
    version = listing.versions.get()
    assert (version.number, version.kind, version.state, version.base) == ("1.0.0", "prompt", "draft", base)
    assert version.starters == ["Ask for a day off", "Thank a colleague"]
    assert version.parameters == {"temperature": 0.3}
    assert client.get(saved["Location"]).status_code == 200


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"slug": "Not A Slug"}, "slug"),
        ({"name_en": "", "summary_en": ""}, "name_en"),
        ({"instructions": ""}, "instructions"),
        ({"use_cases": []}, "use_cases"),
        ({"base": "ver_unknown"}, "base"),
        ({"input_price": "-1"}, "input_price"),
        ({"temperature": "3"}, "temperature"),
        ({"starters": "\n".join("abcdefg")}, "starters"),
        ({"instructions": "a\x07b"}, "instructions"),
    ],
)
def test_what_is_wrong_stands_at_its_field_and_nothing_is_half_made(
    client: Client, base: Version, changes: dict[str, Any], said: str
) -> None:
    publisher = making.make_publisher()
    client.force_login(making.owner_of(publisher))

    response = client.post(f"/en/studio/publishers/{publisher.slug}/new/", new_gpt(base, **changes))

    assert response.status_code == 422
    assert f'id="id_{said}_error"' in response.text
    assert not Listing.objects.filter(publisher=publisher).exists()


def test_a_taken_name_is_said_at_the_name(client: Client, draft: Version, base: Version) -> None:
    client.force_login(making.owner_of(draft.listing.publisher))

    response = client.post(f"/en/studio/publishers/{draft.listing.publisher.slug}/new/", new_gpt(base, slug=draft.listing.slug))

    assert response.status_code == 422
    assert 'id="id_slug_error"' in response.text
    assert Listing.objects.filter(publisher=draft.listing.publisher).count() == 1


def test_a_draft_is_edited_submitted_and_withdrawn(client: Client, draft: Version) -> None:
    listing = draft.listing
    client.force_login(making.owner_of(listing.publisher))
    at = f"/en/studio/gpts/{listing.full_name}/"

    Version.objects.filter(pk=draft.pk).update(parameters={"temperature": 0.2, "stop": ["END"]})
    edited = {"instructions": "Answer in one word.", "starters": "", "change_log": "Shorter", "temperature": ""}
    assert client.post(f"{at}versions/{draft.number}/", edited)["Location"] == at
    draft.refresh_from_db()
    assert (draft.instructions, draft.starters, draft.change_log) == ("Answer in one word.", [], "Shorter")
    assert draft.parameters == {"stop": ["END"]}

    assert (
        client.post(f"{at}submit/", {"version": draft.number, "texts": "1", "visibility": "unlisted", "note": "Please"})["Location"] == at
    )
    submission = Submission.objects.get(listing=listing)
    assert (submission.version, submission.state, submission.listing.wanted_visibility) == (draft, "checking", "unlisted")
    assert "Withdraw" in client.get(at).text
    assert "生成: 运行中" in client.get(at.replace("/en/", "/zh-hans/")).text

    assert client.post(f"{at}withdraw/")["Location"] == at
    submission.refresh_from_db()
    assert submission.state == "withdrawn"


def test_an_older_version_is_made_current_again(client: Client, base: Version) -> None:
    listing = making.make_listing()
    first = making.make_prompt(base, listing)
    second = making.make_prompt(base, listing, number="1.1.0")
    client.force_login(making.owner_of(listing.publisher))

    response = client.post(f"/en/studio/gpts/{listing.full_name}/versions/1.0.0/current/")

    assert response["Location"] == f"/en/studio/gpts/{listing.full_name}/"
    listing.refresh_from_db()
    assert (listing.current_version, second.pk != first.pk) == (first, True)


def test_prices_are_typed_in_money_and_kept_in_micro_units(client: Client, draft: Version) -> None:
    listing = draft.listing
    client.force_login(making.owner_of(listing.publisher))

    client.post(f"/en/studio/gpts/{listing.full_name}/prices/", {"input_price": "0.000001", "output_price": "12.5"})
    refused = client.post(f"/en/studio/gpts/{listing.full_name}/prices/", {"input_price": "1001", "output_price": "0"})

    listing.refresh_from_db()
    assert (listing.input_price_micro, listing.output_price_micro) == (1, 12_500_000)
    assert refused.status_code == 422


def test_an_approved_gpt_is_taken_off_the_lists_and_a_draft_is_not_shown(client: Client, base: Version, draft: Version) -> None:
    listed = making.make_prompt(base, making.make_listing(draft.listing.publisher)).listing
    client.force_login(making.owner_of(listed.publisher))

    hidden = client.post(f"/en/studio/gpts/{listed.full_name}/visibility/", {"visibility": "unlisted"})
    refused = client.post(f"/en/studio/gpts/{draft.listing.full_name}/visibility/", {"visibility": "public"})

    assert (hidden.status_code, refused.status_code) == (302, 409)
    assert Listing.objects.get(pk=listed.pk).visibility == "unlisted"
    assert Listing.objects.get(pk=draft.listing.pk).visibility == "draft"


def test_the_list_of_a_publisher_asks_the_same_number_of_queries_for_one_draft_and_for_six(client: Client, draft: Version) -> None:
    publisher = draft.listing.publisher
    client.force_login(making.owner_of(publisher))
    counts = []
    for more in (0, 5):
        for _ in range(more):
            making.draft_prompt(draft.base, making.make_listing(publisher))
        with CaptureQueriesContext(connection) as queries:
            client.get(f"/en/studio/publishers/{publisher.slug}/")
        counts.append(len(queries))

    assert counts[0] == counts[1]


def test_strangers_find_no_studio_of_others(client: Client, draft: Version) -> None:
    client.force_login(making.make_user())

    overview = ("get", f"/en/studio/gpts/{draft.listing.full_name}/")
    for method, address in [*screens(draft.listing), overview, ("get", f"/en/studio/publishers/{draft.listing.publisher.slug}/")]:
        assert getattr(client, method)(address).status_code == 404, address
    assert Version.objects.get(pk=draft.pk).state == "draft"


def test_members_see_the_studio_but_change_nothing(client: Client, draft: Version) -> None:
    listing = draft.listing
    client.force_login(making.join(listing.publisher, "member"))

    page = client.get(f"/en/studio/gpts/{listing.full_name}/")
    assert page.status_code == 200
    assert "Submit for review" not in page.text
    for method, address in screens(listing):
        assert getattr(client, method)(address).status_code == 403, address
    assert Version.objects.get(pk=draft.pk).state == "draft"
    assert not Submission.objects.exists()


def test_the_studio_asks_for_an_account(client: Client, draft: Version) -> None:
    for _method, address in screens(draft.listing):
        assert client.get(address)["Location"].startswith("/en/account/login/"), address


def test_who_has_no_publisher_is_led_to_make_one(client: Client) -> None:
    client.force_login(making.make_user())

    assert "/en/studio/new-publisher/" in client.get("/en/studio/").text
    refused = client.post("/en/studio/new-publisher/", {"name": "Admin", "slug": "admin", "kind": "person", "about": ""})
    assert (refused.status_code, Publisher.objects.count()) == (422, 0)


@pytest.mark.parametrize(("number", "after"), [("1.0.0", "1.1.0"), ("2.9.4", "2.10.0"), ("", "1.0.0")])
def test_the_number_after_a_version(number: str, after: str) -> None:
    assert next_number(number) == after


def test_a_released_version_is_deprecated_withdrawn_and_brought_back(client: Client, base: Version) -> None:
    first = making.make_prompt(base)
    making.make_prompt(base, first.listing, number="1.1.0")
    client.force_login(making.owner_of(first.listing.publisher))
    at = f"/en/studio/gpts/{first.listing.full_name}/"

    assert client.post(f"{at}versions/1.0.0/retire/", {"act": "deprecate", "notice": ""}).status_code == 422
    assert client.post(f"{at}versions/1.0.0/retire/", {"act": "deprecate", "notice": "Use 1.1.0."})["Location"] == at
    assert "deprecated" in client.get(at).text
    assert "Use 1.1.0." in client.get(f"{at}versions/1.0.0/retire/").text
    assert client.post(f"{at}versions/1.1.0/retire/", {"act": "yank", "notice": "Gone."}).status_code == 422  # the current one
    client.post(f"{at}versions/1.0.0/retire/", {"act": "yank", "notice": "Gone."})
    assert Version.objects.get(pk=first.pk).state == "yanked"
    assert "Bring it back" in client.get(f"{at}versions/1.0.0/retire/").text
    assert client.get(f"/en/chat/new/?model={first.full_name}").status_code == 410
    client.post(f"{at}versions/1.0.0/retire/", {"act": "bring_back"})
    assert Version.objects.get(pk=first.pk).state == "released"


def test_who_saves_texts_second_is_shown_both_and_saves_again(client: Client, draft: Version) -> None:
    listing, other = draft.listing, making.join(draft.listing.publisher, "maintainer", "mo")
    at = f"/en/studio/gpts/{listing.full_name}/texts/"
    client.force_login(making.owner_of(listing.publisher))
    mine = seen_in(client.get(at).text) | {"name_en": "Poet", "summary_en": "Mine."}
    theirs = Client()
    theirs.force_login(other)
    theirs.post(at, seen_in(theirs.get(at).text) | {"name_en": listing.text().name, "summary_en": "<b>Theirs</b>"})

    told = client.post(at, mine)

    assert told.status_code == 409
    assert "mo saved this while you wrote." in told.text
    assert "&lt;b&gt;Theirs&lt;/b&gt;" in told.text
    assert 'value="Mine."' in told.text
    assert listing.revisions.get(state="draft").texts.get().summary == "<b>Theirs</b>"
    assert client.post(at, seen_in(told.text) | {"name_en": "Poet", "summary_en": "Ours."}).status_code == 302
    assert listing.revisions.get(state="draft").texts.get().summary == "Ours."


def test_who_saves_a_draft_second_gets_both_changes(client: Client, draft: Version) -> None:
    at = f"/en/studio/gpts/{draft.listing.full_name}/versions/{draft.number}/"
    client.force_login(making.owner_of(draft.listing.publisher))
    opened = seen_in(client.get(at).text) | {"instructions": draft.instructions, "starters": "\n".join(draft.starters)}
    client.post(at, opened | {"change_log": "Theirs", "temperature": "0.5"})

    told = client.post(at, opened | {"instructions": "Answer in rhyme."})

    assert told.status_code == 409
    assert ("Answer in rhyme." in told.text, ">\nTheirs<" in told.text, 'value="0.5"' in told.text) == (True, True, True)
    assert Version.objects.get(pk=draft.pk).instructions == draft.instructions


def seen_in(page: str) -> dict[str, str]:
    found = re.search(r'name="seen" value="([^"]+)"', page)
    assert found is not None
    return {"seen": found[1]}


def test_texts_are_shown_as_people_will_see_them_and_nothing_is_kept(client: Client, draft: Version) -> None:
    client.force_login(making.owner_of(draft.listing.publisher))
    at = f"/en/studio/gpts/{draft.listing.full_name}/texts/"
    card = "## Limits\n\n<script>alert(1)</script> [bad](javascript:alert(1)) **often**"

    piece = client.post("/en/studio/preview/", {"name": "A <i>name</i>", "summary": "Short.", "card": card}).text
    page = client.post(at, {"name_en": "Poet", "summary_en": "Short.", "card_en": card, "preview": "1"})

    for shown in (piece, page.text):
        assert "<strong>often</strong>" in shown
        assert "<script>alert" not in shown
        assert 'href="javascript' not in shown
    assert "A &lt;i&gt;name&lt;/i&gt;" in piece
    assert page.status_code == 200
    assert draft.listing.revisions.get().texts.get().card == "# Card"


def test_the_headings_of_a_good_description_are_offered_in_the_language_of_the_text(client: Client, draft: Version) -> None:
    client.force_login(making.owner_of(draft.listing.publisher))

    for language in ("en", "zh-hans"):
        page = client.get(f"/{language}/studio/gpts/{draft.listing.full_name}/texts/").text
        for heading in ("## Intended use", "## Limits", "## Data", "## Licence", "## Evaluation", "## 用途", "## 局限"):
            assert heading in page, heading
