"""Asking with nothing but forms: a visitor's page holds no token, so their first question goes by a page that has one."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.test import Client

from store.catalog.models import Listing
from store.generation.models import Request
from store.playground.models import Conversation
from tests import making
from tests.api.engine import ScriptedEngine
from tests.playground.test_chat import START, model  # noqa: F401 a GPT called acme/poet

pytestmark = pytest.mark.django_db(transaction=True)
LISTING = "/en/gpts/acme/poet/"
CONFIRM = "/en/chat/confirm/"


@pytest.fixture
def plain() -> Client:
    return Client(enforce_csrf_checks=True)


def form_of(page: str, *, containing: str) -> tuple[str, dict[str, str]]:
    """Where the form with that text leads, and its hidden fields."""
    form = next(form for form in re.findall(r"<form.*?</form>", page, re.DOTALL) if containing in form)
    action = re.search(r'action="([^"]*)"', form)
    assert action
    hidden = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', form)
    return action[1], dict(hidden)


@pytest.mark.parametrize("where", [LISTING, "/en/", "/en/chat/new/?model=acme/poet"])
def test_a_visitor_asks_with_a_plain_form_and_reading_sets_no_cookie(plain: Client, engine: ScriptedEngine, where: str) -> None:
    read = plain.get(where)
    action, fields = form_of(read.text, containing='name="text"')
    assert (read.cookies, action, list(fields)) == ({}, CONFIRM, ["model"])

    shown = plain.post(action, fields | {"text": "Say <hello>.", "temperature": "0"})
    assert (shown.status_code, set(shown.cookies), Request.objects.count()) == (200, {"csrftoken"}, 0)
    assert ">Say &lt;hello&gt;.</textarea>" in shown.text
    action, fields = form_of(shown.text, containing='name="text"')
    assert (action, fields["temperature"]) == (START, "0")
    answered = plain.post(action, fields | {"text": "Say <hello>."})

    assert answered.status_code == 302
    conversation = plain.get(answered["Location"])
    assert "Hello there" in conversation.text
    assert [order.messages[-1]["content"] for order in engine.orders] == ["Say <hello>."]
    action, fields = form_of(conversation.text, containing='id="say"')
    assert plain.post(action, fields | {"text": "And again?"})["Location"] == answered["Location"]
    assert Conversation.objects.get().messages.count() == 4


def test_who_has_a_token_from_an_earlier_act_asks_at_once(plain: Client, engine: ScriptedEngine) -> None:
    plain.post(CONFIRM, {"model": "acme/poet", "text": "Hello"})

    read = plain.get(LISTING)

    action, fields = form_of(read.text, containing='name="text"')
    assert (action, sorted(fields)) == (START, ["csrfmiddlewaretoken", "model"])
    assert plain.post(action, fields | {"text": "Hello"}).status_code == 302


def test_somebody_signed_in_asks_on_a_listing_page_with_a_plain_form(plain: Client, engine: ScriptedEngine) -> None:
    plain.force_login(making.make_user(), backend="django.contrib.auth.backends.ModelBackend")

    action, fields = form_of(plain.get(LISTING).text, containing='name="text"')

    assert action == START
    assert plain.post(action, fields | {"text": "Hello"}).status_code == 302
    assert Request.objects.get().user is not None


def test_nothing_is_asked_without_the_token_and_another_site_is_not_even_shown_the_page(plain: Client, engine: ScriptedEngine) -> None:
    fields = {"model": "acme/poet", "text": "Hello"}

    assert plain.post(START, fields).status_code == 403
    elsewhere = plain.post(CONFIRM, fields, headers={"sec-fetch-site": "cross-site"})

    assert (elsewhere.status_code, elsewhere.cookies) == (403, {})
    assert plain.get(CONFIRM).status_code == 405
    assert plain.post(CONFIRM, {"model": "acme/nobody", "text": "Hello"}).status_code == 404
    assert plain.post(CONFIRM, b"text=caf%E9", content_type="application/x-www-form-urlencoded").status_code == 400
    assert (Request.objects.count(), engine.orders) == (0, [])


def test_a_refused_question_stays_on_the_page_to_be_sent_again(plain: Client) -> None:
    """No worker lives here."""
    shown = plain.post(CONFIRM, {"model": "acme/poet", "text": "Hello"})
    action, fields = form_of(shown.text, containing='name="text"')

    refused = plain.post(action, fields | {"text": "Hello"})

    assert refused.status_code == 503
    assert "No worker that could answer is running right now." in refused.text
    assert ">Hello</textarea>" in refused.text
    assert form_of(refused.text, containing='name="text"')[1]["model"] == "acme/poet"
    assert not Conversation.objects.exists()


@pytest.mark.usefixtures("valkey_away")
def test_a_question_stays_on_the_page_while_the_store_is_away(plain: Client) -> None:
    shown = plain.post(CONFIRM, {"model": "acme/poet", "text": "Hello"})
    action, fields = form_of(shown.text, containing='name="text"')

    refused = plain.post(action, fields | {"text": "Hello"})

    assert refused.status_code == 503
    assert "Try again in a few seconds." in refused.text
    assert ">Hello</textarea>" in refused.text


def test_a_gpt_with_a_price_asks_a_visitor_to_sign_in_and_comes_back_with_the_text(plain: Client, engine: Any) -> None:
    Listing.objects.filter(slug="poet").update(output_price_micro=5)

    refused = plain.post(CONFIRM, {"model": "acme/poet", "text": "Hello"})

    assert refused.status_code == 401
    assert 'href="/en/account/login/?next=%2Fen%2Fchat%2Fnew%2F%3Fmodel%3Dacme%252Fpoet%26text%3DHello"' in refused.text
