"""A battle against the real application, its answers through the real broker; only the engine follows a script."""

from __future__ import annotations

import json
import re

import pytest

from store.accounts.models import User
from store.catalog.models import Listing, Version
from store.generation import dispatch
from store.generation.errors import NoWorker
from store.generation.models import Request
from store.playground.models import Battle
from tests import making
from tests.api.engine import ScriptedEngine, fails, protocol, says
from tests.playground.conftest import Browser

pytestmark = pytest.mark.django_db(transaction=True)
START = "/en/chat/arena/start/"


@pytest.fixture(autouse=True)
def contenders() -> list[Version]:
    base = making.make_base(slug="base")
    Listing.objects.filter(pk=base.listing_id).update(visibility="unlisted")
    return [making.make_prompt(base, making.make_listing(making.make_publisher(slug=f"house-of-{name}"), slug=name)) for name in ("p", "q")]


@pytest.fixture
def voter(visitor: Browser) -> User:
    user = making.make_user()
    visitor.sign_in(user)
    return user


def test_both_answers_come_without_names_and_the_vote_shows_them(
    visitor: Browser, voter: User, engine: ScriptedEngine, contenders: list[Version]
) -> None:
    engine.script = says("**Good**", " morning")

    url = visitor.act(START, text="Greet me.").json()["url"]
    page = visitor.get(url).text
    streams = re.findall(r'data-events="([^"]+)"', page)
    said = [visitor.events(stream) for stream in streams]

    assert len(set(streams)) == 2
    assert "<fieldset disabled" in page
    heard = page + json.dumps(said)
    for version in contenders:
        assert version.instructions not in heard
        assert version.listing.publisher.slug not in heard
        assert version.public_id not in heard
    assert {order.version for order in engine.orders} == {version.public_id for version in contenders}
    ready = visitor.get(url).text
    assert ready.count("<strong>Good</strong> morning") == 2
    assert "<fieldset data-voting>" in ready
    assert visitor.act(f"{url}vote/", script=False, vote="tie").headers["location"] == url
    shown = visitor.get(url).text
    assert all(version.full_name in shown for version in contenders)
    assert all(version.instructions not in shown for version in contenders)
    assert visitor.act(f"{url}vote/", script=False, vote="a").status_code == 409
    assert Battle.objects.get().vote == "tie"
    assert Listing.objects.filter(request_count=0).count() == 3  # what the store chose is no use of theirs


def test_without_a_script_the_page_comes_when_both_have_answered(visitor: Browser, voter: User, engine: ScriptedEngine) -> None:
    response = visitor.act(START, script=False, text="Greet me.")

    assert response.status_code == 302
    page = visitor.get(response.headers["location"]).text
    assert page.count("Hello there") == 2
    assert "<fieldset data-voting>" in page


def test_a_battle_in_which_one_fails_has_no_vote(visitor: Browser, voter: User, engine: ScriptedEngine) -> None:
    engine.script = fails(protocol.FailureCode.INTERNAL)

    url = visitor.act(START, script=False, text="Greet me.").headers["location"]

    page = visitor.get(url).text
    assert "did not come to its end" in page
    assert "data-voting" not in page
    assert visitor.act(f"{url}vote/", vote="a").status_code == 409


def test_when_one_of_both_can_not_be_sent_nothing_of_the_battle_is_left(
    visitor: Browser, voter: User, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent, send = [], dispatch.send

    def send_only_the_first(order: protocol.GenerationRequest) -> None:
        sent.append(order.id)
        if len(sent) > 1:
            raise NoWorker
        send(order)

    monkeypatch.setattr(dispatch, "send", send_only_the_first)

    refused = visitor.act(START, text="Greet me.")

    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "no_worker")
    assert not Battle.objects.exists()
    assert not Request.objects.filter(state=Request.State.ADMITTED).exists()
