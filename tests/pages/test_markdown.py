"""Untrusted Markdown: nothing in it may run, load or look like a part of the page."""

from __future__ import annotations

import re

import pytest

from store.pages.markdown import render_markdown

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "![x](https://tracker.example/pixel.gif)",
    "![x](javascript:alert(1))",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](data:text/html;base64,PHNjcmlwdD4=)",
    "[x](vbscript:msgbox(1))",
    "<a href='javascript:alert(1)'>x</a>",
    "<javascript:alert(1)>",
    "[x]: javascript:alert(1)\n\n[x]",
    '[x](https://example.org "\\" onmouseover=\\"alert(1)")',
    "<svg/onload=alert(1)>",
    "<style>body{display:none}</style>",
    "<iframe src='https://example.org'></iframe>",
    "<form action='https://example.org'><input name=password></form>",
    "```<img src=x onerror=alert(1)>\n<script>alert(1)</script>\n```",
    "| <b onclick=alert(1)> |\n|---|\n| `<script>` |",
    "&lt;script&gt;alert(1)&lt;/script&gt; &#60;script&#62;",
    "<!--><script>alert(1)</script>-->",
    "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)>",
    "# <h1 id=content style='position:fixed'>x</h1>",
]
ALLOWED = {
    *("p", "br", "hr", "h3", "h4", "h5", "h6", "strong", "em", "s", "code", "pre", "blockquote"),
    *("ul", "ol", "li", "a", "table", "thead", "tbody", "tr", "th", "td"),
}


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_markdown_leaves_only_harmless_elements_and_attributes(text: str) -> None:
    html = render_markdown(text)

    for name, attributes in re.findall(r"<([a-zA-Z0-9]+)([^>]*)>", html):
        assert name in ALLOWED, html
        for attribute in re.findall(r'\s([a-zA-Z-]+)="', attributes):
            assert attribute in {"href", "title", "rel", "class", "start", "tabindex"}, html
        for address in re.findall(r'href="([^"]*)"', attributes):
            assert re.match(r"(https?:|mailto:)", address), html


def test_links_vouch_for_nothing_and_pictures_become_links() -> None:
    assert render_markdown("[a](https://example.org)") == '<p><a href="https://example.org" rel="nofollow ugc noopener">a</a></p>\n'
    assert render_markdown("![a cat](https://example.org/c.png)") == (
        '<p><a href="https://example.org/c.png" rel="nofollow ugc noopener">a cat</a></p>\n'
    )


def test_headings_stand_below_those_of_the_page() -> None:
    assert render_markdown("# One\n\n#### Four") == "<h3>One</h3>\n<h6>Four</h6>\n"
    assert render_markdown("## Two\n\n### Three") == "<h3>Two</h3>\n<h4>Three</h4>\n"


def test_tables_lists_and_code_are_kept() -> None:
    html = render_markdown("| a | b |\n|---|--:|\n| 1 | 2 |\n\n1. x\n\n```python\nprint(1)\n```")

    assert "<th>b</th>" in html
    assert "<td>2</td>" in html
    assert "<ol>\n<li>x</li>\n</ol>" in html
    assert '<pre tabindex="0"><code class="language-python">print(1)\n</code></pre>' in html


def test_deep_nesting_is_rendered_without_running_away() -> None:
    assert len(render_markdown("> " * 2000 + "x" + "\n" + "* " * 2000)) < 100_000
