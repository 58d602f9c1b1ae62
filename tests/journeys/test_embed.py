"""A GPT in a frame of another site, with the keyboard alone: it answers where its publisher lets it be shown, and nowhere else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from playwright.sync_api import Page, expect

from store.catalog.models import Version
from store.playground.models import Embed
from tests import making
from tests.stack import Stack

pytestmark = [pytest.mark.browser]


def _base() -> Version:
    found = Version.objects.available().filter(kind="weights").order_by("pk").first()
    assert found is not None
    return found


@pytest.fixture
def elsewhere(stack: Stack) -> Iterator[HTTPServer]:
    """A site on another port whose one page includes what its address names."""

    class Site(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            gpt, language = self.path.strip("/").split("/")
            script = f'<script src="{stack.url}/embed.js" data-gpt="{gpt}" data-language="{language}" data-title="A chat" async></script>'
            body = f"<!doctype html><title>Elsewhere</title><h1>Elsewhere</h1>{script}".encode()
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@pytest.mark.parametrize(("language", "ask"), [("en", "Say one word."), ("zh-hans", "说一个词。")])
def test_a_frame_answers_on_the_site_that_was_named(page: Page, elsewhere: HTTPServer, stack: Stack, language: str, ask: str) -> None:
    origin = f"http://127.0.0.1:{elsewhere.server_port}"
    embed = Embed.objects.create(listing=making.make_prompt(_base()).listing, is_on=True, origins=[origin])
    page.goto(f"{origin}/{embed.public_id}/{language}")
    frame = page.frame_locator("iframe[title='A chat']")
    expect(frame.get_by_role("heading", level=1)).to_be_visible()

    frame.get_by_role("textbox").focus()
    page.keyboard.type(ask)
    page.keyboard.press("Enter")

    expect(frame.locator(".message.mine .body")).to_have_text(ask)
    expect(frame.locator(".message.answer-to .body:not([aria-busy])")).not_to_be_empty(timeout=120_000)
    expect(frame.get_by_role("textbox")).to_be_focused()
    assert page.context.cookies() == []
    assert page.frames[1].evaluate("origin") == "null"


def test_no_other_site_can_frame_it(page: Page, elsewhere: HTTPServer, stack: Stack) -> None:
    embed = Embed.objects.create(listing=making.make_prompt(_base()).listing, is_on=True, origins=["https://example.org"])
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))

    page.goto(f"http://127.0.0.1:{elsewhere.server_port}/{embed.public_id}/en")
    expect(page.locator("iframe")).to_have_count(1)
    page.wait_for_load_state("networkidle")

    expect(page.frame_locator("iframe").get_by_role("textbox")).to_have_count(0)
    assert [line for line in said if "frame-ancestors" in line]
