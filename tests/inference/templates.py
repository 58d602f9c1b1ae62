"""Chat templates, and patterns of a tokenizer, that need too much, always or when a message says so."""

from __future__ import annotations

import json
from pathlib import Path

from tests.inference.tiny import CHAT_TEMPLATE, write_json

NESTED = "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}"
HUGE = "{{ ('x' * 9000000000) | length }}"
RECURSIVE = "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}"


def with_template(folder: Path, template: str) -> Path:
    (folder / "chat_template.jinja").write_text(template)
    return folder


def with_pattern(folder: Path, pattern: str) -> Path:
    """Texts are cut at the matches of this regular expression first."""
    settings = json.loads((folder / "tokenizer.json").read_text())
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    pre_tokenizer = {"type": "Sequence", "pretokenizers": [split, settings["pre_tokenizer"]]}
    write_json(folder / "tokenizer.json", settings | {"pre_tokenizer": pre_tokenizer})
    return folder


def for_those_who_say(**templates: str) -> str:
    """The template of the tiny models, but another one for a conversation that contains one of these words."""
    cases = [f"{{% if '{word}' in messages[-1]['content'] %}}{template}{{% endif %}}" for word, template in templates.items()]
    return "".join(cases) + CHAT_TEMPLATE
