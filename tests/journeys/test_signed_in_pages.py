"""Every page behind a sign-in, as its people see it: both languages, both themes, on a telephone and on a desk.

With PICTURES=folder each is kept there as a picture too, in every combination of these, to be looked at.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from store.accounts.models import User
from store.catalog.models import Version
from tests.journeys.conftest import FOR_AXE, TWO_FRAMES, WITHIN_MS, real_password, sign_in
from tests.journeys.scene import Scene, build_scene
from tests.journeys.test_languages import english_in
from tests.stack import Stack

pytestmark = [pytest.mark.browser, pytest.mark.real_model]
DESK, TELEPHONE = ("light", 1440), ("dark", 360)  # no theme changes what is where
VIEWS = {"en": (TELEPHONE, DESK), "zh-hans": (DESK, TELEPHONE)}  # what axe judges it judges in the last
PICTURED_TOO = (("dark", 1440), ("light", 360))
BASE = "smollm2-135m-instruct"
UNSEEN = """() => {
  const box = (element) => element.getBoundingClientRect();
  const named = (element) => element.outerHTML.replace(/\\s+/g, " ").slice(0, 100);
  const seen = [...document.querySelectorAll("main :not(.visually-hidden, input, select)")].filter((element) => element.checkVisibility());
  const cut = seen.filter((element) => {
    const style = getComputedStyle(element);
    const hides = ["hidden", "clip"].includes(style.overflowX) && style.textOverflow !== "ellipsis" && element.clientWidth > 1;
    return hides && element.scrollWidth > element.clientWidth + 1;
  });
  const current = seen.filter((element) => element.matches("[aria-current]"));
  const away = current.filter((element) => box(element).left < 0 || box(element).right > innerWidth + 1);
  const late = seen.filter((element) => element.matches("h1, h2")).slice(0, 1).filter((element) => box(element).bottom <= 0);
  const told = (what, elements) => elements.map((element) => `${what} ${named(element)}`);
  return [...told("cuts off", cut), ...told("out of sight", away), ...told("begins below", late)];
}"""


@pytest.fixture(scope="module")
def scene(_the_stack: Stack, django_db_blocker: object) -> Scene:
    with django_db_blocker.unblock():  # type: ignore[attr-defined]
        scene = build_scene(Version.objects.available().get(kind="weights", listing__slug=BASE))
        real_password(scene.owner)
        real_password(scene.reviewer)
        return scene


@pytest.mark.parametrize("language", ["en", "zh-hans"])
@pytest.mark.parametrize("whose", ["owner", "reviewer"])
def test_pages_behind_a_sign_in_are_whole(browser: Browser, stack: Stack, scene: Scene, whose: str, language: str) -> None:
    person, pages = (scene.owner, scene.owners_pages) if whose == "owner" else (scene.reviewer, scene.reviewers_pages)
    page, complaints = opened(browser, stack, person)

    wrong: dict[str, list[str]] = {}
    for number, (name, path) in enumerate(pages.items()):
        answer = page.goto(stack.url + path.replace("/en/", f"/{language}/", 1))
        assert answer is not None
        found = [] if answer.status == 200 else [f"answers {answer.status}"]
        found += shown(page, f"{name}-{language}".replace(" ", "-"), VIEWS[language])
        found += sorted(set(complaints))  # before axe, which sets styles that the content policy refuses
        found += english_in(page.content()) if language == "zh-hans" else []
        if number % len(VIEWS) == list(VIEWS).index(language):  # each page once: to judge it takes longer than all else
            found += judged(page, *VIEWS[language][-1])
            page.goto("about:blank")  # by then all that axe caused has been told
        complaints.clear()
        if found:
            wrong[name] = found

    page.context.close()
    assert not wrong, "\n".join(f"{name}: {found}" for name, found in wrong.items())


def opened(browser: Browser, stack: Stack, person: User) -> tuple[Page, list[str]]:
    """A browser in which the person is signed in, and what it complains of from then on."""
    page, complaints = browser.new_context(reduced_motion="reduce").new_page(), []
    page.set_default_timeout(WITHIN_MS)
    sign_in(page, stack, person)
    page.on("console", lambda said: complaints.append(f"{said.text[:160]} {said.location['url']}") if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return page, complaints


def shown(page: Page, name: str, views: tuple[tuple[str, int], ...]) -> list[str]:
    """What is wider than its screen, cut off or out of sight, in each view. The last stays."""
    wrong, folder = [], os.environ.get("PICTURES")
    for theme, width in (*PICTURED_TOO, *views) if folder else views:
        _look(page, theme, width)
        overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        if overflow > 0:
            wrong.append(f"{overflow} px wider than {width}")
        wrong += [f"{what} at {width}" for what in page.evaluate(UNSEEN)]
        if folder:
            page.screenshot(path=Path(folder) / f"{name}-{theme}-{width}.png", full_page=True)
    return wrong


def judged(page: Page, theme: str, width: int) -> list[str]:
    """What axe finds wrong with the page as it is shown now, which is so."""
    violations = Axe().run(page, options=FOR_AXE).response["violations"]
    return [f"{theme} {width} {violation['id']}: {violation['nodes'][0]['html'][:160]}" for violation in violations]


def _look(page: Page, theme: str, width: int) -> None:
    page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
    page.set_viewport_size({"width": width, "height": 900})
    page.evaluate(TWO_FRAMES)  # the page hears of its new size before a frame, and what it then moves is seen after it
