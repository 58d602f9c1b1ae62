"""What a browser says of itself, in words its person knows it by."""

from __future__ import annotations

import re

from django import template

register = template.Library()

# The first that is named counts: most browsers also name those they are made like.
_BROWSERS = (("Edg", "Edge"), ("OPR", "Opera"), ("SamsungBrowser", "Samsung Internet"), ("Firefox", "Firefox"), ("FxiOS", "Firefox"))
_ENGINES = (("CriOS", "Chrome"), ("HeadlessChrome", "Chrome"), ("Chrome", "Chrome"), ("Safari", "Safari"))
_SYSTEMS = (
    (("iPhone", "iPad"), "iOS"),
    (("Android",), "Android"),
    (("Windows",), "Windows"),
    (("Mac OS X",), "macOS"),
    (("CrOS",), "ChromeOS"),
    (("Linux",), "Linux"),
)
_SHOWN_CHARS = 60


@register.filter
def browser(user_agent: str) -> str:
    """`Firefox · Linux` of a User-Agent header; one that names no browser as it is, shortened."""
    named = next((name for token, name in (*_BROWSERS, *_ENGINES) if re.search(rf"\b{token}/", user_agent)), "")
    if not named:
        return user_agent if len(user_agent) <= _SHOWN_CHARS else f"{user_agent[:_SHOWN_CHARS]}…"
    system = next((name for tokens, name in _SYSTEMS if any(token in user_agent for token in tokens)), "")
    return f"{named} · {system}" if system else named
