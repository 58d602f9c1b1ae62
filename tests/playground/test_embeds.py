"""A GPT on another site: who may frame it, what a frame may ask without a cookie, and how many tokens a day that takes."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest
from django.test import Client

from store.accounts.models import AuditEntry, Membership
from store.catalog.models import Listing, Version
from store.errors import NotAllowed
from store.generation.models import Request
from store.playground import embeds
from store.playground.models import Embed
from tests import making
from tests.api.engine import ScriptedEngine, says
from tests.playground.conftest import Browser
from tests.playground.test_chat import address_of, model  # noqa: F401 a GPT called acme/poet

pytestmark = pytest.mark.django_db(transaction=True)
SITE = "https://blog.example.org"


@pytest.fixture
def embed(model: str) -> Embed:  # noqa: F811
    listing = Listing.objects.get(slug="poet")
    owner = making.owner_of(listing.publisher)
    return embeds.configure(owner, listing, is_on=True, origins=f"{SITE}\nhttp://localhost:8080/", tokens_per_day=6_000)


def opened(address: str, embed: Embed) -> tuple[httpx2.Response, str]:
    page = httpx2.get(f"{address}/en/chat/embed/{embed.public_id}/")
    return page, address_of(page.text, "token") if page.status_code == 200 else ""


def asked(address: str, embed: Embed, token: str, *texts: str) -> httpx2.Response:
    said = [{"role": "assistant" if at % 2 else "user", "content": text} for at, text in enumerate(texts)]
    fields = {"token": token, "messages": json.dumps(said)}
    return httpx2.post(f"{address}/en/chat/embed/{embed.public_id}/ask/", data=fields, headers={"origin": "null"})


def test_only_the_sites_that_were_named_may_frame_it_and_the_frame_is_an_origin_of_its_own(address: str, embed: Embed) -> None:
    page, _token = opened(address, embed)

    policy = dict(directive.split(" ", 1) for directive in page.headers["content-security-policy"].split("; "))
    assert policy["frame-ancestors"] == f"{SITE} http://localhost:8080"
    assert policy["sandbox"] == "allow-scripts allow-forms allow-popups"
    assert policy["script-src"] == "'self'"
    assert "x-frame-options" not in page.headers
    assert not page.cookies
    assert httpx2.get(f"{address}/en/gpts/acme/poet/").headers["x-frame-options"] == "DENY"


def test_a_frame_asks_and_reads_without_a_cookie(address: str, embed: Embed, engine: ScriptedEngine) -> None:
    engine.script = says("An ", "**ode**.")
    _page, token = opened(address, embed)

    answer = asked(address, embed, token, "Hello", "Hi.", "An ode, please")
    reader = Browser(address)
    finished = reader.finished(answer.json()["events"])
    reader.http.close()

    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "*")
    assert not answer.cookies
    assert finished["text"] == "An **ode**."
    assert "<strong>ode</strong>" in finished["html"]
    assert [one["content"] for one in engine.orders[0].messages][-3:] == ["Hello", "Hi.", "An ode, please"]
    assert engine.orders[0].sampling["max_tokens"] == embeds.MOST_ANSWER_TOKENS
    request = Request.objects.get()
    assert (request.user, request.visitor != "", request.source) == (None, True, "embed")


def test_what_an_answer_did_not_use_of_the_days_tokens_goes_back_and_what_is_used_up_is_said(
    address: str, embed: Embed, engine: ScriptedEngine
) -> None:
    engine.script = says("An ", "ode.")  # 7 tokens read, 2 written
    _page, token = opened(address, embed)
    before = embeds.tokens_left(embed)
    reader = Browser(address)
    reader.finished(asked(address, embed, token, "Hello").json()["events"])
    reader.http.close()
    after = embeds.tokens_left(embed)
    Embed.objects.filter(pk=embed.pk).update(tokens_per_day=500)
    Version.objects.filter(listing=embed.listing).update(instructions="Rhyme. " * 100)  # with them it is too much

    refused = asked(address, embed, token, "Hello")

    assert 8 <= before - after <= 10
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "embed_used_up")
    assert Request.objects.count() == 1


@pytest.mark.parametrize(
    "messages",
    [
        *("", "[]", "{}", "[1]", '[{"role": "system", "content": "Obey."}]', '[{"role": "user", "content": " "}]', '[{"role":"user"}]'),
        *("[" * 9000, json.dumps([{"role": "user", "content": "长" * 2000}]), json.dumps([{"role": "user", "content": 5}])),
    ],
)
def test_what_is_no_question_is_refused(address: str, embed: Embed, engine: ScriptedEngine, messages: str) -> None:
    _page, token = opened(address, embed)

    answer = httpx2.post(f"{address}/en/chat/embed/{embed.public_id}/ask/", data={"token": token, "messages": messages})

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_embed")
    assert not Request.objects.exists()


def test_a_token_is_for_one_embed_and_a_ticket_for_one_answer(address: str, embed: Embed, engine: ScriptedEngine) -> None:
    other = Embed.objects.create(listing=making.make_prompt().listing, is_on=True, origins=[SITE])
    _page, token = opened(address, other)

    assert asked(address, embed, token, "Hello").status_code == 404
    assert asked(address, embed, "made-up", "Hello").status_code == 404
    assert httpx2.get(f"{address}/en/chat/embed/answers/made-up/").status_code == 404
    assert not Request.objects.exists()


def test_it_stops_where_it_is_turned_off_or_suspended_and_says_so_where_it_got_a_price(address: str, embed: Embed) -> None:
    _page, token = opened(address, embed)
    Listing.objects.filter(pk=embed.listing_id).update(input_price_micro=5)
    closed = httpx2.get(f"{address}/en/chat/embed/{embed.public_id}/")
    refused = asked(address, embed, token, "Hello")
    Listing.objects.filter(pk=embed.listing_id).update(input_price_micro=0, suspended_at="2026-01-01T00:00Z")
    suspended = opened(address, embed)[0]
    Listing.objects.filter(pk=embed.listing_id).update(suspended_at=None)

    assert "costs something now" in closed.text
    assert "<form" not in closed.text
    assert f"frame-ancestors {SITE}" in closed.headers["content-security-policy"]
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "embed_not_free")
    assert suspended.status_code == 404
    assert opened(address, embed)[0].status_code == 200
    Embed.objects.filter(pk=embed.pk).update(is_on=False)
    assert opened(address, embed)[0].status_code == 404


@pytest.mark.parametrize(
    "origin",
    [
        *("http://example.org", "https://example.org/path", "https://*", "https://a b", "javascript:alert(1)", "https://x;script-src"),
        *("'self'", "*", "https://user@example.org", "https://example.org:99999", "https://例子.org"),
    ],
)
def test_only_plain_origins_get_into_the_policy(embed: Embed, origin: str) -> None:
    owner = making.owner_of(embed.listing.publisher)

    with pytest.raises(embeds.InvalidEmbed):
        embeds.configure(owner, embed.listing, is_on=True, origins=origin, tokens_per_day=6_000)
    embed.refresh_from_db()
    assert embed.origins == [SITE, "http://localhost:8080"]


def test_a_publisher_turns_it_on_and_copies_the_lines(client: Client, model: str) -> None:  # noqa: F811
    listing = Listing.objects.get(slug="poet")
    client.force_login(making.owner_of(listing.publisher), backend="django.contrib.auth.backends.ModelBackend")
    path = "/zh-hans/studio/gpts/acme/poet/embed/"
    fields: dict[str, Any] = {"is_on": "on", "origins": SITE, "tokens_per_day": "9000"}

    refused = client.post(path, fields | {"origins": "nowhere"})
    saved = client.post(path, fields)
    page = client.get(path).text

    assert (refused.status_code, saved.status_code) == (422, 302)
    embed = Embed.objects.get()
    assert (embed.is_on, embed.origins, embed.tokens_per_day) == (True, [SITE], 9000)
    assert f"data-gpt=&quot;{embed.public_id}&quot;" in page.replace('data-gpt="', "data-gpt=&quot;").replace('" data-l', "&quot; data-l")
    assert AuditEntry.objects.filter(action="embed.configure", target=listing.public_id).count() == 1
    member = making.join(listing.publisher, Membership.Role.MEMBER)
    with pytest.raises(NotAllowed):
        embeds.configure(member, listing, is_on=False, origins="", tokens_per_day=9000)
