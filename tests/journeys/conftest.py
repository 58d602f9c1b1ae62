"""A real browser on the running stack."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import ConsoleMessage, Locator, Page, expect

from store.accounts.models import User
from tests.journeys.test_languages import english_in
from tests.making import make_user
from tests.stack import Stack

PASSWORD = "correct horse 9"  # what tests.making gives everybody
TABS_AT_MOST = 120
FOR_AXE = {"preload": False, "reporter": "no-passes"}  # to describe what is as it should be takes as long as to find what is not
TWO_FRAMES = "() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))"
BEFORE_THE_FOCUS = """(element) => {
  const at = document.activeElement;
  return element === at ? "there" : element.compareDocumentPosition(at) & Node.DOCUMENT_POSITION_FOLLOWING ? "before" : "after";
}"""

Judge = Callable[[Page], None]
WITHIN_MS = 20_000  # on a busy machine
expect.set_options(timeout=WITHIN_MS)


@pytest.fixture(scope="session", autouse=True)
def _django_beside_playwright() -> Iterator[None]:
    """Playwright's synchronous interface runs an event loop in this thread, where Django would refuse its ORM."""
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    yield
    del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict[str, Any]) -> dict[str, Any]:
    # The first is Chromium without the windows, menus and toolbars that nobody sees here: half the processor time.
    found = next(filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "google-chrome"))), None)
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
def complaints() -> list[str]:
    """What the browser of `site` complained of."""
    return []


@pytest.fixture
def site(page: Page, stack: Stack, complaints: list[str]) -> Iterator[Page]:
    """A page with the stack's address, that fails the test when the browser reports an error or a violated policy."""

    def listen(message: ConsoleMessage) -> None:
        if message.type == "error" and "Failed to load resource" not in message.text:
            complaints.append(message.text)

    page.on("console", listen)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.set_default_timeout(WITHIN_MS)
    yield page
    assert complaints == []


@pytest.fixture
def judge(complaints: list[str]) -> Judge:
    """Fails for what axe finds wrong with a page, and for English on a Chinese one."""

    def judged(page: Page) -> None:
        told = list(complaints)
        violations = Axe().run(page, options=FOR_AXE).response["violations"]
        page.evaluate(TWO_FRAMES)
        complaints[:] = told  # without those about the styles that axe itself sets
        english = english_in(page.content()) if "/zh-hans/" in page.url else []
        assert [f"{violation['id']}: {violation['nodes'][0]['html'][:160]}" for violation in violations] + english == []

    return judged


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


def press(page: Page, target: Locator) -> None:
    reach(page, target)
    page.keyboard.press("Enter")


def write(page: Page, target: Locator, text: str) -> None:
    """Types it in the place of what a field holds."""
    reach(page, target)
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type(text)


def choose(page: Page, target: Locator, value: str) -> None:
    """Goes through the choices of a <select> to this one."""
    reach(page, target)
    page.keyboard.press("Home")
    for _ in range(target.locator("option").count()):
        if target.input_value() == value:
            return
        page.keyboard.press("ArrowDown")
    raise AssertionError(f"{target} offers no {value}")


def reach(page: Page, target: Locator) -> None:
    """Goes on by Tab, or back by Shift+Tab, until the target has the focus, as somebody without a mouse does."""
    for _ in range(TABS_AT_MOST):
        where = target.evaluate(BEFORE_THE_FOCUS)
        if where == "there":
            return
        page.keyboard.press("Shift+Tab" if where == "before" else "Tab")
    raise AssertionError(f"{target} cannot be reached by Tab")
