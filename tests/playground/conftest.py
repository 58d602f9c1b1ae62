from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import httpx2
import pytest

from store.accounts.models import User
from tests.api.conftest import address, engine  # noqa: F401 the real application, and the engine that follows a script

CSRF = "/en/chat/csrf/"
FORM = {"content-type": "application/x-www-form-urlencoded"}


@dataclass
class Browser:
    """A browser of a person: keeps its cookies, fetches the token at its first act, reads event streams."""

    address: str
    http: httpx2.Client = field(init=False)
    token: str = ""

    def __post_init__(self) -> None:
        self.http = httpx2.Client(base_url=self.address, timeout=30)

    def act(self, path: str, *, body: bytes | None = None, script: bool = True, **fields: Any) -> httpx2.Response:
        if not self.token:
            self.token = self.http.get(CSRF).json()["token"]
        headers = FORM | {"x-csrftoken": self.token} | ({"accept": "application/json"} if script else {})
        return self.http.post(path, content=urlencode(fields).encode() if body is None else body, headers=headers)

    def get(self, path: str) -> httpx2.Response:
        return self.http.get(path)

    def events(self, path: str, *, after: str = "") -> list[tuple[str, str, dict[str, Any]]]:
        """(entry, name, event) up to the end of the stream."""
        headers = {"last-event-id": after} if after else {}
        body = self.http.get(path, headers=headers).raise_for_status().text
        found = []
        for block in body.strip().split("\n\n"):
            lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith((":", "retry")))
            if "data" in lines:
                found.append((lines.get("id", ""), lines["event"], json.loads(lines["data"])))
        return found

    def finished(self, path: str) -> dict[str, Any]:
        entry, name, event = self.events(path)[-1]
        assert name == "finished"
        return event

    def sign_in(self, user: User) -> None:
        from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
        from django.contrib.sessions.backends.db import SessionStore

        session = SessionStore()
        session[SESSION_KEY] = str(user.pk)
        session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
        session[HASH_SESSION_KEY] = user.get_session_auth_hash()
        session.save()
        self.http.cookies.set("sessionid", session.session_key or "")
        self.token = ""


@pytest.fixture
def visitor(address: str) -> Iterator[Browser]:  # noqa: F811
    browser = Browser(address)
    yield browser
    browser.http.close()


@pytest.fixture
def stranger(address: str) -> Iterator[Browser]:  # noqa: F811
    browser = Browser(address)
    yield browser
    browser.http.close()
