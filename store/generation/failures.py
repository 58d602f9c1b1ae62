"""What a failed generation says to the person who asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from inference.protocol import FailureCode, FinishReason

SENTENCES: dict[str, tuple[int, str | Promise]] = {
    FailureCode.CONTEXT_LENGTH_EXCEEDED: (400, _("The messages are longer than this GPT can read at once. Shorten them.")),
    FailureCode.TEMPLATE_FAILED: (400, _("This GPT can't read messages in this order. Let user and assistant alternate.")),
    FailureCode.INVALID_PARAMETER: (400, _("This GPT can't be asked with that value of the parameter.")),
    FailureCode.GRAMMAR_UNSUPPORTED: (400, _("An answer can't be made to follow the format asked for: %(reason)s.")),
    FailureCode.BASE_UNAVAILABLE: (503, _("The model could not be loaded. Try again later.")),
    FailureCode.ADAPTER_UNAVAILABLE: (503, _("The fine-tuned part of this model could not be loaded. Try again later.")),
    FailureCode.ENGINE_DIED: (502, _("The model stopped in the middle of the answer. Try again.")),
    FailureCode.NO_WORKER: (503, _("No worker is running that could answer. Try again later; nothing was charged.")),
    FailureCode.OVERLOADED: (503, _("The model has as much to do as it can take. Try again in a moment.")),
    FailureCode.INTERNAL: (500, _("The model failed. Try again; if it stays, tell the store's operator the request id.")),
}
OVERDUE = _("The answer took longer than allowed and was stopped. Ask for fewer tokens.")


def sentence(finished: Mapping[str, Any]) -> str:
    """Why there is no (whole) answer, in the reader's language; "" when it ended as it should or was stopped."""
    if finished["reason"] == FinishReason.DEADLINE:
        return str(OVERDUE)
    if finished["reason"] != FinishReason.ERROR:
        return ""
    return said(finished)[1]


def said(finished: Mapping[str, Any]) -> tuple[int, str]:
    """The HTTP status and the sentence for a generation that failed."""
    status, message = SENTENCES.get(finished.get("failure") or "", SENTENCES[FailureCode.INTERNAL])
    if finished.get("failure") == FailureCode.GRAMMAR_UNSUPPORTED:
        return status, str(message) % {"reason": finished.get("detail", {}).get("reason", "")}
    return status, str(message)
