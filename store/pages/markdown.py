"""Untrusted Markdown as safe HTML: parsed without raw HTML, then cleaned by an allow-list."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any

import nh3
from django.utils.safestring import SafeString, mark_safe
from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token

_TAGS = {
    *("p", "br", "hr", "h3", "h4", "h5", "h6", "strong", "em", "s", "code", "pre", "blockquote"),
    *("ul", "ol", "li", "a", "table", "thead", "tbody", "tr", "th", "td"),
}
_TOP_HEADING = 3  # a page's own title is h1 and its sections are h2


def _image(self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: MutableMapping[str, Any]) -> str:
    """Pictures are not loaded, which would tell their server who reads this page: the description links to them."""
    token = tokens[index]
    return f'<a href="{escapeHtml(str(token.attrs.get("src", "")))}">{escapeHtml(token.content) or "…"}</a>'


def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "maxNesting": 20}).enable(["table", "strikethrough"])
    parser.add_render_rule("image", _image)
    return parser


_PARSER = _parser()


def render_markdown(text: str) -> SafeString:
    tokens = _PARSER.parse(text)
    headings = [token for token in tokens if token.type in ("heading_open", "heading_close")]
    top = min((int(token.tag[1]) for token in headings), default=1)
    for token in headings:
        token.tag = f"h{min(6, int(token.tag[1]) - top + _TOP_HEADING)}"
    html = _PARSER.renderer.render(tokens, _PARSER.options, {})
    clean = nh3.clean(
        html,
        tags=_TAGS,
        attributes={"a": {"href", "title"}, "code": {"class"}, "ol": {"start"}},
        set_tag_attribute_values={"pre": {"tabindex": "0"}},  # wide lines are scrolled, with the keyboard too
        url_schemes={"http", "https", "mailto"},
        link_rel="nofollow ugc noopener",
    )
    return mark_safe(clean)
