"""Pages of GPTs as anonymous visitors see them, kept in each web process and answered before Django is asked.

Only for who brings no cookie and no key, so a person's own page is neither kept nor is a kept one shown to them; only what was answered
with 200 and set no cookie. A page lives KEPT_S seconds, and ends at once when an act says that it may have changed (`outdate`,
`outdate_all`): that leaves a mark in Valkey, which is compared before each answer. Without Valkey nothing is kept.
"""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

import structlog
from django.db import transaction

from store import request_ids, valkey
from store.bodies import App, Message, Receive, Scope, Send
from store.errors import AWAY

log = structlog.get_logger(__name__)

KEPT_S = 30.0
MARKED_S = 120  # longer than any page that was made before the mark is kept
KEPT_BYTES = 32 * 1024**2  # of all pages in one process
_LISTING = re.compile(r"/(?:en|zh-hans)/gpts/([^/]+/[^/]+)/")
_PERSONAL = frozenset({b"cookie", b"authorization"})
_EVERYTHING = ""

Key = tuple[str, ...]
Looked = Callable[[str, Mapping[bytes, bytes]], Awaitable[None]]  # at a listing (`publisher/name`), by whom these headers are


# ---------------------------------------------------------------- what acts say


def outdate(names: Iterable[str]) -> None:
    """The pages of these listings (`publisher/name`) are made anew once the transaction is committed."""
    transaction.on_commit(partial(_mark, list(names)), robust=True)


def outdate_all() -> None:
    """Every page: for what reaches listings that cannot be named cheaply."""
    outdate([_EVERYTHING])


def _mark(names: list[str]) -> None:
    try:
        pipeline: Any = valkey.client().pipeline(transaction=False)
        for name in names:
            pipeline.set(_mark_key(name), uuid.uuid4().hex, ex=MARKED_S)
        pipeline.execute()
    except AWAY as error:
        log.warning("kept pages are not outdated: Valkey is away", error=repr(error)[:200])


def _mark_key(name: str) -> str:
    return f"changed-page:{name}"


# ---------------------------------------------------------------- what is kept


@dataclass(frozen=True)
class Page:
    marks: tuple[str | None, ...]  # as they were before it was made
    until: float  # on the monotonic clock
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def answers(self, marks: tuple[str | None, ...]) -> bool:
        return self.marks == marks and time.monotonic() < self.until

    async def send(self, send: Send, request_id: str) -> None:
        headers = [*self.headers, (b"x-request-id", request_id.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


@dataclass
class Recorder:
    """Passes an answer on and remembers it."""

    onward: Send
    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: list[bytes] = field(default_factory=list)
    is_complete: bool = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], [(name.lower(), value) for name, value in message["headers"]]
        elif message["type"] == "http.response.body":
            self.body.append(message.get("body", b""))
            self.is_complete = not message.get("more_body", False)
        await self.onward(message)

    def page(self, marks: tuple[str | None, ...]) -> Page | None:
        """None where it is not the same for everybody."""
        named = dict(self.headers)
        varies = {name.strip().lower() for name in named.get(b"vary", b"").split(b",") if name.strip()}
        is_shared = self.status == 200 and b"set-cookie" not in named and b"cache-control" not in named and varies <= {b"cookie"}
        if not (is_shared and self.is_complete):
            return None
        headers = [(name, value) for name, value in self.headers if name != b"x-request-id"]
        return Page(marks, time.monotonic() + KEPT_S, headers, b"".join(self.body))


class KeptPages:
    """ASGI wrapper: answers what it has kept, and lets one request at a time make a page that it has not.

    `looked` is told of each answer of which the view behind does not hear.
    """

    def __init__(self, app: App, *, looked: Looked | None = None) -> None:
        self.app = app
        self._looked = looked
        self._pages: OrderedDict[Key, Page] = OrderedDict()  # the longest unused first
        self._size_bytes = 0
        self._making: WeakValueDictionary[Key, asyncio.Lock] = WeakValueDictionary()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = _asked(scope)
        if asked is None:
            await self.app(scope, receive, send)
            return
        name, key, request_id = asked
        page = self._kept(key, await _marks(name)) if key in self._pages else None
        if page is None:
            page = await self._made(name, key, scope, receive, send)
        if page is not None:
            await page.send(send, request_id)
            if self._looked is not None:
                await self._looked(name, dict(scope["headers"]))

    async def _made(self, name: str, key: Key, scope: Scope, receive: Receive, send: Send) -> Page | None:
        """What another request has made meanwhile; None once this one is answered."""
        async with self._lock(key):
            marks = await _marks(name)
            if (page := self._kept(key, marks)) is not None:
                return page
            recorder = Recorder(send)
            await self.app(scope, receive, recorder.send)
            if marks is not None and (page := recorder.page(marks)) is not None:
                self._keep(key, page)
        return None

    def _lock(self, key: Key) -> asyncio.Lock:
        lock = self._making.get(key)
        if lock is None:
            lock = self._making[key] = asyncio.Lock()
        return lock

    def _kept(self, key: Key, marks: tuple[str | None, ...] | None) -> Page | None:
        page = self._pages.get(key)
        if page is None or marks is None or not page.answers(marks):
            return None
        self._pages.move_to_end(key)
        return page

    def _keep(self, key: Key, page: Page) -> None:
        if (old := self._pages.pop(key, None)) is not None:
            self._size_bytes -= len(old.body)
        self._pages[key] = page
        self._size_bytes += len(page.body)
        while self._size_bytes > KEPT_BYTES:
            _key, oldest = self._pages.popitem(last=False)
            self._size_bytes -= len(oldest.body)


def _asked(scope: Scope) -> tuple[str, Key, str] | None:
    """The listing, what tells its page from others, and the id of the request; None for every other request."""
    if scope["type"] != "http" or scope["method"] != "GET" or scope["query_string"]:
        return None
    match = _LISTING.fullmatch(scope["path"])
    if match is None:
        return None
    headers = dict(scope["headers"])
    if not _PERSONAL.isdisjoint(headers):
        return None
    told = (headers.get(name, b"").decode("latin-1") for name in (b"host", b"x-forwarded-proto"))
    key = (scope.get("scheme", ""), scope.get("root_path", ""), scope["path"], *told)
    return match[1], key, request_ids.usable(headers.get(b"x-request-id", b"").decode("latin-1"))


async def _marks(name: str) -> tuple[str | None, ...] | None:
    """Which changes were last said of the listing and of everything; None when Valkey is away."""
    try:
        answered: list[Any] = await valkey.async_client().mget(_mark_key(_EVERYTHING), _mark_key(name))
    except AWAY as error:
        log.warning("no page is kept: Valkey is away", error=repr(error)[:200])
        return None
    return tuple(answered)
