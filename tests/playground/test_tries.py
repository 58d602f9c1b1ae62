"""What a person without an account may try: counted by browser and by network, and the way on when it is used up."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx2
import pytest

from store.generation.models import Request
from tests import making
from tests.api.engine import ScriptedEngine
from tests.playground.conftest import Browser
from tests.playground.test_chat import SECRET, START, TRY, model  # noqa: F401 a GPT called acme/poet

pytestmark = pytest.mark.django_db(transaction=True)
GPT = "acme/poet"


@pytest.fixture
def new_browser(address: str) -> Iterator[Any]:
    """Makes browsers that have no cookie yet."""
    opened: list[Browser] = []

    def open_browser() -> Browser:
        opened.append(Browser(address))
        return opened[-1]

    yield open_browser
    for browser in opened:
        browser.http.close()


def tried(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json().get("error", {}).get("code", "")


def test_throwing_the_cookie_away_wins_no_tries_beyond_those_of_the_network(
    new_browser: Any, engine: ScriptedEngine, settings: Any
) -> None:
    settings.VISITOR_TRIES_PER_NETWORK = 3
    for where, fields in ((TRY, {}), (START, {"model": GPT}), (TRY, {})):
        assert tried(new_browser().act(where, text="Hello", **fields)) == (200, "")

    refused = new_browser().act(START, model=GPT, text="Hello")

    assert tried(refused) == (429, "tries_used_up")
    assert refused.json()["error"]["message"] == "Today's tries without an account are used up where you are. Sign up to go on; it is free."
    assert 0 < int(refused.headers["retry-after"]) <= 28_800
    assert (Request.objects.count(), len(engine.orders)) == (3, 3)
    user = new_browser()
    user.sign_in(making.make_user())
    assert tried(user.act(TRY, text="Hello")) == (200, "")


def test_of_many_browsers_at_once_only_as_many_begin_as_the_network_has_tries(
    new_browser: Any, engine: ScriptedEngine, settings: Any
) -> None:
    settings.VISITOR_TRIES_PER_NETWORK = 2
    browsers = [new_browser() for _ in range(6)]

    with ThreadPoolExecutor(6) as pool:
        begun = list(pool.map(lambda browser: browser.act(TRY, text="Hello").status_code, browsers))

    assert sorted(begun) == [200, 200, 429, 429, 429, 429]
    assert Request.objects.count() == 2


def test_what_is_refused_for_another_reason_uses_up_no_try(new_browser: Any, engine: ScriptedEngine, settings: Any) -> None:
    settings.VISITOR_TRIES_PER_NETWORK = 1
    for _ in range(3):
        assert tried(new_browser().act(TRY, text=" ")) == (400, "invalid_messages")

    begun = new_browser().act(TRY, text="Hello")

    assert (begun.status_code, begun.json()["left"]) == (200, "0 tries left today without an account")


def test_sign_up_leads_back_to_the_page_that_asked(new_browser: Any, engine: ScriptedEngine, settings: Any) -> None:
    settings.VISITOR_TRIES_PER_NETWORK = 1
    browser = new_browser()
    browser.act(TRY, text="Hello")

    for page in ("/en/gpts/acme/poet/?code=curl", "/en/chat/new/?model=acme/poet"):
        browser.http.headers["referer"] = browser.address + page
        way_out = browser.act(TRY, text="Hello").json()["error"]["way_out"]
        assert way_out == {"label": "Sign up", "url": "/en/account/signup/?" + urlencode({"next": page})}
        assert f'<input type="hidden" name="next" value="{page}"' in browser.get(way_out["url"]).text
    browser.http.headers["referer"] = "https://elsewhere.example/"
    assert browser.act(TRY, text="Hello").json()["error"]["way_out"]["url"] == "/en/account/signup/"


@pytest.mark.parametrize(("text", "carried"), [("Why? & how <b>", "Why? & how <b>"), ("诗" * 700, None)])
def test_without_a_script_too_the_text_is_kept_and_comes_along_to_the_new_account(
    new_browser: Any, engine: ScriptedEngine, settings: Any, text: str, carried: str | None
) -> None:
    settings.VISITOR_TRIES_PER_NETWORK = 1
    browser = new_browser()
    browser.act(TRY, text="Hello")

    refused = browser.act(START, script=False, model=GPT, text=text, seed="7")

    assert (refused.status_code, Request.objects.count()) == (429, 1)
    assert "Today&#x27;s tries without an account are used up where you are." in refused.text
    for kept in (f'name="text" rows="6" required>{escaped(text)}</textarea>', 'name="seed" value="7"', f'action="{START}"'):
        assert kept in refused.text
    back = parse_qs(urlsplit(address_in(refused.text, "/en/account/signup/")).query)["next"][0]
    assert parse_qs(urlsplit(back).query) == {"model": [GPT]} | ({"text": [carried]} if carried else {})
    browser.sign_in(making.make_user())
    assert (f">{escaped(text)}</textarea>" in browser.get(back).text) is bool(carried)


def escaped(text: str) -> str:
    from django.utils.html import escape

    return str(escape(text))


def address_in(page: str, begin: str) -> str:
    """The first address in the page that begins so."""
    from html import unescape

    start = page.index(f'href="{begin}?') + len('href="')
    return unescape(page[start : page.index('"', start)])
