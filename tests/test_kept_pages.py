"""Pages of GPTs that are kept for visitors: whose they are, and when they end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest
from asgiref.sync import async_to_sync
from django.urls import reverse

from store.accounts.models import User
from store.catalog import listings, releases, retiring
from store.kept_pages import KeptPages
from tests import making

PATH = "/en/gpts/lab/notes/"


@dataclass
class Site:
    """A store that answers everything with how often it was asked, behind the wrapper."""

    status: int = 200
    answer_headers: list[tuple[bytes, bytes]] = field(default_factory=lambda: [(b"Vary", b"Cookie")])
    asked: int = 0
    looked: list[tuple[str, bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pages = KeptPages(self._answer, looked=self._look)

    async def _look(self, name: str, headers) -> None:
        self.looked.append((name, headers[b"host"]))

    async def _answer(self, scope, receive, send) -> None:
        self.asked += 1
        await asyncio.sleep(0)
        await send({"type": "http.response.start", "status": self.status, "headers": [*self.answer_headers, (b"x-request-id", b"first")]})
        await send({"type": "http.response.body", "body": b"answer ", "more_body": True})
        await send({"type": "http.response.body", "body": str(self.asked).encode()})

    async def ask(self, path: str = PATH, *headers: tuple[bytes, bytes], query: bytes = b"", method: str = "GET") -> tuple[bytes, dict]:
        sent: list = []
        scope = {"type": "http", "method": method, "scheme": "http", "path": path, "query_string": query}

        async def send(message) -> None:
            sent.append(message)

        await self.pages(scope | {"headers": [(b"host", b"store.example"), *headers]}, None, send)
        return b"".join(message.get("body", b"") for message in sent), dict(sent[0]["headers"])

    def get(self, *asked, **others) -> bytes:
        return async_to_sync(self.ask)(*asked, **others)[0]


def test_a_visitor_is_shown_what_was_made_for_the_one_before(valkey: str) -> None:
    site = Site()

    first, second = site.get(), site.get(PATH, (b"user-agent", b"another"))

    assert (first, second, site.asked) == (b"answer 1", b"answer 1", 1)
    assert site.looked == [("lab/notes", b"store.example")]  # what the view behind does not count


def test_an_answer_has_the_id_of_its_own_request() -> None:
    site = Site()
    site.get()

    _body, headers = async_to_sync(site.ask)(PATH, (b"x-request-id", b"of-the-second"))

    assert headers[b"x-request-id"] == b"of-the-second"


@pytest.mark.parametrize("header", [(b"cookie", b"sessionid=mine"), (b"authorization", b"Bearer key")])
def test_what_a_person_sees_is_neither_kept_nor_a_kept_page(header) -> None:
    site = Site()

    assert [site.get(PATH, header), site.get(), site.get(PATH, header), site.get()] == [b"answer 1", b"answer 2", b"answer 3", b"answer 2"]


@pytest.mark.parametrize(
    ("status", "header"),
    [
        *[(404, (b"Vary", b"Cookie")), (302, (b"Vary", b"Cookie"))],
        *[(200, (b"Set-Cookie", b"visitor=1")), (200, (b"Cache-Control", b"private")), (200, (b"Vary", b"Cookie, Accept-Language"))],
    ],
)
def test_only_what_is_the_same_for_everybody_is_kept(status: int, header) -> None:
    site = Site(status, [header])

    assert [site.get(), site.get()] == [b"answer 1", b"answer 2"]


@pytest.mark.parametrize(
    ("asked", "others"),
    [
        ([PATH], {"query": b"code=curl"}),
        ([PATH], {"method": "HEAD"}),
        ([PATH, (b"x-forwarded-proto", b"https")], {}),
        (["/zh-hans/gpts/lab/notes/"], {}),
    ],
)
def test_another_question_has_another_answer(asked, others) -> None:
    site = Site()
    site.get()

    assert site.get(*asked, **others) == b"answer 2"


def test_many_at_once_have_it_made_once() -> None:
    site = Site()

    async def ask_at_once() -> set[bytes]:
        return {body for body, _headers in await asyncio.gather(*(site.ask() for _ in range(9)))}

    assert (async_to_sync(ask_at_once)(), site.asked) == ({b"answer 1"}, 1)


def test_a_page_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("store.kept_pages.KEPT_S", 0.0)
    site = Site()

    assert [site.get(), site.get()] == [b"answer 1", b"answer 2"]


def test_nothing_is_kept_without_valkey(valkey_away: None) -> None:
    site = Site()

    assert [site.get(), site.get()] == [b"answer 1", b"answer 2"]


@pytest.mark.django_db
@pytest.mark.parametrize(
    "act",
    [
        lambda owner, listing: listings.suspend(listing),
        lambda owner, listing: releases.suspend(listing.current_version),
        lambda owner, listing: listings.set_visibility(owner, listing, visibility="unlisted"),
        lambda owner, listing: listings.set_prices(owner, listing, input_price_micro=1, output_price_micro=1),
        lambda owner, listing: retiring.deprecate(owner, listing.current_version, notice="Use another."),
    ],
)
def test_an_act_ends_a_page_at_once(act, django_capture_on_commit_callbacks) -> None:
    owner: User = making.make_user("owner")
    listing = making.make_base(making.make_publisher(owner)).listing
    listing.refresh_from_db()
    path = reverse("pages:listing", args=[listing.publisher.slug, listing.slug])
    site = Site()
    site.get(path)

    with django_capture_on_commit_callbacks(execute=True):
        act(owner, listing)

    assert site.get(path) == b"answer 2"
