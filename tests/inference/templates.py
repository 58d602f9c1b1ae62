"""Chat templates that need too much, always or when a message says so."""

from __future__ import annotations

from pathlib import Path

from tests.inference.tiny import CHAT_TEMPLATE

NESTED = "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}"
HUGE = "{{ ('x' * 9000000000) | length }}"
RECURSIVE = "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}"


def with_template(folder: Path, template: str) -> Path:
    (folder / "chat_template.jinja").write_text(template)
    return folder


def for_those_who_say(**templates: str) -> str:
    """The template of the tiny models, but another one for a conversation that contains one of these words."""
    cases = [f"{{% if '{word}' in messages[-1]['content'] %}}{template}{{% endif %}}" for word, template in templates.items()]
    return "".join(cases) + CHAT_TEMPLATE
