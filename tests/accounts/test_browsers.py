"""How a browser is called on the page of the sessions."""

from __future__ import annotations

import pytest

from store.accounts.templatetags.browsers import browser

LIKE_GECKO = "AppleWebKit/537.36 (KHTML, like Gecko)"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox · Linux"),
        (f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {LIKE_GECKO} Chrome/141.0.0.0 Safari/537.36", "Chrome · Windows"),
        (f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {LIKE_GECKO} Chrome/141.0.0.0 Safari/537.36 Edg/141.0.0.0", "Edge · Windows"),
        (f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) {LIKE_GECKO} Version/18.0 Safari/605.1.15", "Safari · macOS"),
        (f"Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) {LIKE_GECKO} CriOS/141.0 Mobile/15E148 Safari/604.1", "Chrome · iOS"),
        (f"Mozilla/5.0 (Linux; Android 15; Pixel 9) {LIKE_GECKO} Chrome/141.0.0.0 Mobile Safari/537.36", "Chrome · Android"),
        ("curl/8.9.1", "curl/8.9.1"),
        ("x" * 200, "x" * 60 + "…"),
        ("", ""),
    ],
)
def test_a_browser_has_the_name_its_person_knows(said: str, shown: str) -> None:
    assert browser(said) == shown
