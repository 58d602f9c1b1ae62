"""Every Chinese page is Chinese: none shows an English message of the catalogue."""

from __future__ import annotations

import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import httpx2 as httpx
import polib
import pytest
from django.conf import settings

from store.catalog.models import Listing
from tests.stack import Stack

pytestmark = [pytest.mark.browser]
CATALOGUE = Path(settings.LOCALE_PATHS[0]) / "zh_Hans" / "LC_MESSAGES" / "django.po"
PAGES_AT_MOST = 60
AUTONYMS = {"English"}  # a language is named in its own words
# What is no page, and the files of models.
SKIPPED = re.compile(r"/(logout|i18n|admin|static|api|v1|events|export)|/files/.|\.(json|md|jsonl|xml)$")


class _Text(HTMLParser):
    """Visible texts and labels outside foreign-language parts, code and scripts; and the links of the page."""

    ATTRIBUTES = ("aria-label", "placeholder", "title", "alt")

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.links: list[str] = []
        self._stack: list[bool] = [False]  # whether each open element is left out

    VOID = frozenset({"meta", "link", "input", "br", "img", "hr", "use", "path", "rect", "circle", "line"})

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        foreign = "lang" in given and not str(given["lang"]).startswith("zh") and tag != "html"
        out = self._stack[-1] or foreign or tag in ("script", "style", "code", "pre", "textarea")
        if tag == "a" and given.get("href"):
            self.links.append(str(given["href"]))
        if not out:
            self.texts += [str(given[name]) for name in self.ATTRIBUTES if given.get(name)]
        if tag not in self.VOID:
            self._stack.append(out)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID and len(self._stack) > 1:
            self._stack.pop()

    def handle_data(self, data: str) -> None:
        if not self._stack[-1] and data.strip():
            self.texts.append(data.strip())


@cache
def english_messages() -> frozenset[str]:
    """Messages whose Chinese differs from their English, without placeholders."""
    entries = [entry for entry in polib.pofile(str(CATALOGUE)) if entry.msgid not in AUTONYMS]
    return frozenset(entry.msgid.strip() for entry in entries if entry.msgid != entry.msgstr and not re.search(r"[%{]", entry.msgid))


def english_in(page: str) -> list[str]:
    """The texts of a Chinese page that are English messages."""
    shown = _Text()
    shown.feed(page)
    return [text for text in shown.texts if text in english_messages()]


def test_no_chinese_page_shows_an_english_message(stack: Stack) -> None:
    listing = Listing.objects.listed().order_by("pk").first()
    todo, seen, found = [f"/zh-hans/gpts/{listing.full_name}/", "/zh-hans/"], set(), []

    with httpx.Client(base_url=stack.url, timeout=60) as browser:
        while todo and len(seen) < PAGES_AT_MOST:
            path = todo.pop(0)
            if path in seen:
                continue
            seen.add(path)
            answer = browser.get(path)
            assert answer.status_code in (200, 302), path
            page = _Text()
            page.feed(answer.text)
            found += [f"{path}: {text}" for text in english_in(answer.text)]
            links = {link.split("#")[0] for link in page.links if link.startswith("/zh-hans/") and not SKIPPED.search(link)}
            todo += sorted(links - seen)

    assert len(seen) > 15
    assert sorted(set(found)) == []
