"""A real browser on the running stack."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import ConsoleMessage, Page

from store.accounts.models import User
from tests.making import make_user
from tests.stack import Stack

PASSWORD = "correct horse 9"  # what tests.making gives everybody


@pytest.fixture(scope="session", autouse=True)
def _django_beside_playwright() -> Iterator[None]:
    """Playwright's synchronous interface runs an event loop in this thread, where Django would refuse its ORM."""
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    yield
    del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict[str, Any]) -> dict[str, Any]:
    found = shutil.which("chromium") or shutil.which("google-chrome")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    quiet = ["--disable-component-update", "--disable-sync"]
    # Else each navigation starts a process of its own, and one more for the next: eight times the processor time.
    few_processes = ["--renderer-process-limit=1", "--disable-site-isolation-trials"]
    return {
        **browser_type_launch_args,
        **({"executable_path": found} if found else {}),
        "args": [*flags, *quiet, *few_processes],
    }


@pytest.fixture
def site(page: Page, stack: Stack) -> Iterator[Page]:
    """A page with the stack's address, that fails the test when the browser reports an error or a violated policy."""
    complaints: list[str] = []

    def listen(message: ConsoleMessage) -> None:
        if message.type == "error" and "Failed to load resource" not in message.text:
            complaints.append(message.text)

    page.on("console", listen)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.set_default_timeout(20_000)
    yield page
    assert complaints == []


def sign_in(page: Page, stack: Stack, user: User) -> None:
    page.goto(f"{stack.url}/en/account/login/")
    page.locator("input[name=login]").fill(user.username)
    page.locator("input[name=password]").fill(PASSWORD)
    page.locator("form:has(input[name=password]) button.primary").click()
    page.wait_for_url(lambda url: "/login/" not in url)


@pytest.fixture
def somebody(stack: Stack) -> User:
    """A person of this test alone, whose password the real stack can check."""
    user = make_user()
    _with_real_password(user)
    return user


def _with_real_password(user: User) -> None:
    """The tests' own settings hash with MD5 for speed, which the stack's settings do not know."""
    from argon2 import PasswordHasher

    encoded = PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1).hash(PASSWORD)
    User.objects.filter(pk=user.pk).update(password="argon2" + encoded)


def real_password(user: User) -> User:
    _with_real_password(user)
    return user
