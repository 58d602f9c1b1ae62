"""Without a network the store says so in the reader's language, and has kept no page of anybody's."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from store.accounts.models import User
from tests.journeys.conftest import sign_in
from tests.stack import Stack

pytestmark = [pytest.mark.browser]
KEPT = """async () => {
  const open = (await caches.keys()).map((name) => caches.open(name));
  const kept = (await Promise.all(open)).map((cache) => cache.keys());
  return (await Promise.all(kept)).flat().map((request) => request.url);
}"""


def test_who_loses_the_network_is_told_and_nothing_private_is_kept(page: Page, stack: Stack, somebody: User) -> None:
    sign_in(page, stack, somebody)
    page.evaluate("async () => { await navigator.serviceWorker.ready; }")
    page.goto(f"{stack.url}/en/account/")
    page.wait_for_function("() => navigator.serviceWorker.controller !== null")
    kept = page.evaluate(KEPT)

    page.context.set_offline(True)
    for language, heading in (("en", "No network"), ("zh-hans", "没有网络")):
        page.goto(f"{stack.url}/{language}/account/")
        expect(page.get_by_role("heading", level=1)).to_have_text(heading)
    page.context.set_offline(False)
    page.get_by_role("link", name="重试").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("个人资料")

    pages = {url.removeprefix(stack.url) for url in kept if "/static/" not in url}
    assert pages == {"/en/offline/", "/zh-hans/offline/"}
