"""What a file of training data can hold, and what each way of training takes: in the reader's language, by the worker's names."""

from __future__ import annotations

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

FORMATS: dict[str, str | Promise] = {
    "chat": _("conversations"),
    "completion": _("prompts with completions"),
    "preference": _("preferences"),
    "text": _("plain text"),
}

# What a publisher's own suite can hold.
ITEMS: dict[str, str | Promise] = {"questions": _("questions with expected answers"), "choices": _("choices"), "texts": _("texts")}

CONTAINERS: dict[str, str | Promise] = {"jsonl": "JSONL", "csv": "CSV", "text": _("text file")}

TAKES: dict[str, str | Promise] = {
    "supervised": _("conversations, or prompts with completions"),
    "preference": _("preferences: a prompt with a chosen and a rejected answer"),
    "text": _("plain text"),
}
