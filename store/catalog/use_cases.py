"""The use cases every installation knows. Operators add more in the admin."""

from __future__ import annotations

from typing import Any

from store.catalog.models import UseCase

USE_CASES = (  # slug, English, Chinese, icon
    ("chat", "Chat", "聊天", "chat"),
    ("summarise", "Summarise", "摘要", "summarise"),
    ("answer", "Answer from a text", "依文作答", "answer"),
    ("rewrite", "Rewrite", "改写", "rewrite"),
    ("extract", "Extract", "提取信息", "extract"),
    ("explain", "Explain", "讲解", "explain"),
    ("write", "Write", "写作", "write"),
    ("translate", "Translate", "翻译", "translate"),
    ("code", "Code", "编程", "code"),
)


def create_missing(**_: Any) -> None:
    """Safe to run again; what an operator has renamed stays renamed. Receives `post_migrate`."""
    known = set(UseCase.objects.values_list("slug", flat=True))
    UseCase.objects.bulk_create(
        [
            UseCase(slug=slug, name_en=name_en, name_zh=name_zh, icon=icon, position=position)
            for position, (slug, name_en, name_zh, icon) in enumerate(USE_CASES, start=1)
            if slug not in known
        ],
        ignore_conflicts=True,
    )
