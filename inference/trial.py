"""A conversation rendered once by a stranger's chat template and tokenizer, as an engine would, before any engine does."""

from __future__ import annotations

from pathlib import Path

from inference.renderer import Renderer

CONVERSATION = [
    {"role": "user", "content": "Hello! 你好"},
    {"role": "assistant", "content": "Hello. What is it about?"},
    {"role": "user", "content": "The sea, its tides and its colours."},
]


def require_bounded(folder: Path) -> None:
    """Raises TemplateFailed when the folder's chat template or tokenizer needs too much, or refuses a plain conversation."""
    with Renderer(folder) as renderer:
        renderer.render(CONVERSATION)
