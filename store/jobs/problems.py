"""What can be wrong with a data file, and why a job failed, in the reader's language: sentences by code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext, ngettext_lazy
from django.utils.translation import gettext_lazy as _

from store.jobs.formats import FORMATS, ITEMS, TAKES

PROBLEMS: dict[str, str | Promise] = {
    "not_utf8": _("This is not UTF-8 text. Save the file as UTF-8."),
    "not_json": _("This is not valid JSON."),
    "not_csv": _("This is not valid CSV, and the file was read only to here. Perhaps a quotation mark is missing, or a cell is too long."),
    "too_deep": _("The JSON is nested too deeply."),
    "line_too_large": _("The line is longer than %(limit_bytes)s bytes."),
    "not_an_object": _("The line must be a JSON object."),
    "wrong_cells": _("The row has %(cells)s cells, but the header names %(columns)s columns."),
    "unknown_format": _(
        "The line has none of the fields “messages”, “prompt” and “completion”, “prompt”, “chosen” and “rejected”, or “text”."
    ),
    "unknown_columns": _("The first line must name the columns: “prompt,completion”, “prompt,chosen,rejected” or “text”."),
    "mixed_formats": _("The line holds %(format)s, but the file began with %(first)s. Put each in a file of its own."),
    "wrong_format": _("The file holds %(format)s. To train this way it must hold %(takes)s."),
    "no_messages": _("There is no list “messages” with at least one message."),
    "too_many_messages": _("%(messages)s messages; at most %(limit)s are allowed."),
    "unsupported_field": _("The field “%(field)s” can't be trained on. Remove it."),
    "message_not_an_object": _("Message %(message)s must be an object with “role” and “content”."),
    "unknown_role": _("Message %(message)s has the role “%(role)s”; it must be system, user or assistant."),
    "system_not_first": _("Message %(message)s is a system message; only the first can be."),
    "wrong_turn": _("Message %(message)s is from %(role)s, but it is the turn of %(expected)s."),
    "not_ended_by_assistant": _("The last message must be the assistant's: it is what the model learns."),
    "not_ended_by_user": _("The prompt must end with a message of the user."),
    "content_not_text": _("The content of message %(message)s must be text."),
    "empty_content": _("The content of message %(message)s is empty."),
    "content_too_long": _("Message %(message)s has %(characters)s characters; at most %(limit)s are allowed."),
    "control_character": _("Message %(message)s contains the control character %(character)s. Remove it."),
    "field_missing": _("There is no “%(field)s”."),
    "field_not_text": _("“%(field)s” must be text."),
    "field_empty": _("“%(field)s” is empty."),
    "field_too_long": _("“%(field)s” has %(characters)s characters; at most %(limit)s are allowed."),
    "field_control_character": _("“%(field)s” contains the control character %(character)s. Remove it."),
    "not_one_answer": _("“%(field)s” must be text or a list with one message of the assistant."),
    "same_answers": _("The chosen and the rejected answer are the same; there is nothing to prefer."),
    "template_failed": _("The model's chat template refused this conversation."),
    "template_not_prefix": _(
        "The chat template changes what stands before message %(message)s, so the answer can't be told from its question. "
        "Leading spaces or line ends in the answer can cause this."
    ),
    "too_long": _("The example has %(tokens)s tokens, more than the %(limit)s trained on. It is left out."),
    "unknown_item": _(
        "The line has none of the fields “prompt” (or “messages”) and “expected”, “context”, “choices” and “answer”, or “text”."
    ),
    "wrong_expected": _("“expected” must be text or a list of texts, of which one is enough."),
    "wrong_choices": _("“choices” must be a list of 2 to %(limit)s texts."),
    "wrong_answer": _("“answer” must be the place of the right choice, a number from 0 to %(choices)s."),
    "too_many_examples": _("The file has more than %(limit)s examples."),
    "file_too_large": _("The file is larger than %(limit_bytes)s bytes."),
    "no_examples": _("The file has no example that can be trained on."),
}

FAILURES: dict[str, str | Promise] = {
    "data_invalid": ngettext_lazy(
        "%(error_count)s line of the file can't be trained on. Correct it and start again; nothing was trained.",
        "%(error_count)s lines of the file can't be trained on. Correct them and start again; nothing was trained.",
        "error_count",
    ),
    "data_unusable": _("The file can't be trained on. Correct it and start again."),
    "data_withdrawn": _("Somebody whose words are in the data took back their leave to use them. Make the data set anew and start again."),
    "predecessor_failed": _("The check of the data could not be run. Try again."),
    "worker_lost": _("The worker that ran it stopped answering, %(attempts)s times. Try again, it goes on from the last checkpoint."),
    "process_died": _("The process that ran it ended without a result, perhaps for want of memory. Try again or choose smaller settings."),
    "hung": _("It gave no sign of life and was ended. Try again, it goes on from the last checkpoint."),
    "out_of_memory": _("The worker has too little memory for it. Choose smaller batches, fewer tokens per example or a smaller base."),
    "diverged": _("The loss was no longer a number near step %(step)s. Start again with a lower learning rate."),
    "too_many_steps": _("%(steps)s steps are more than the %(limit)s allowed. Choose fewer epochs or larger batches."),
    "artifact_unusable": _("A file of the job is missing or was changed in the artifact store."),
    "artifacts_unreachable": _("The artifact store could not be reached. Try again later."),
    "base_unusable": _("The base can't be used."),
    "taken_down": _(
        "What it works on, or something that it builds on, was taken down meanwhile, so it was stopped. It costs nothing. "
        "If that comes back, try again: it goes on from the last checkpoint."
    ),
    "checkpoint_unusable": _("The checkpoint can't be used. Start a new run."),
    "suite_invalid": ngettext_lazy(
        "%(error_count)s line of the suite can't be used. Correct it and start again; nothing was measured.",
        "%(error_count)s lines of the suite can't be used. Correct them and start again; nothing was measured.",
        "error_count",
    ),
    "suite_unusable": _("An item can't be put to this model: %(reason)s"),
    "suite_unknown": _("The worker doesn't know one of these suites; it may be older than the store."),
    "nothing_to_measure": _("None of these suites asks for answers, and instructions change nothing else."),
    "template_failed": _("The model's chat template refused an item."),
    "folder_unusable": _("The files can't be used yet."),
    "worker_storage": _("The worker could not read or write a file. Try again later."),
}


@dataclass(frozen=True)
class Shown:
    """A problem as its row in the table."""

    line: int
    column: int
    sentence: str
    skips: bool  # the example is left out, the file stays good


def shown(problem: Mapping[str, Any]) -> Shown:
    sentence = filled(PROBLEMS.get(problem.get("code", "")), _named(problem.get("detail") or {})) or str(problem.get("message", ""))
    return Shown(int(problem.get("line", 0)), int(problem.get("column", 0)), sentence, bool(problem.get("skips")))


def _named(detail: Mapping[str, Any]) -> dict[str, Any]:
    """The detail with the worker's names of formats, and of what takes them, as people say them."""
    words = FORMATS | ITEMS
    formats = {name: words.get(detail[name], detail[name]) for name in ("format", "first") if name in detail}
    takes = {"takes": TAKES.get(detail["use"], detail["use"])} if "use" in detail else {}
    return {**detail, **formats, **takes}


def failure(code: str, error: str, detail: Mapping[str, Any]) -> str:
    """Why a job failed; one whose code is not known is told as the worker told it."""
    return filled(FAILURES.get(code), detail) or error or gettext("It failed for an unknown reason. Try again.")


def filled(sentence: str | Promise | None, detail: Mapping[str, Any]) -> str:
    """The sentence with its values; empty when there is none or a value is missing."""
    try:
        return str(sentence % detail) if sentence is not None else ""
    except (KeyError, TypeError, ValueError):
        return ""
