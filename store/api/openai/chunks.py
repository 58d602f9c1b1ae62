"""A generation's events in the words of the OpenAI protocol: the completion object, and the chunks of a stream."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from inference.protocol import FailureCode, FinishReason
from store.api.errors import envelope
from store.errors import DomainError

_FAILURES: dict[str, tuple[int, str | Promise]] = {
    FailureCode.CONTEXT_LENGTH_EXCEEDED: (400, _("The messages are longer than this GPT can read at once. Shorten them.")),
    FailureCode.TEMPLATE_FAILED: (400, _("This GPT can't read messages in this order. Let user and assistant alternate.")),
    FailureCode.BASE_UNAVAILABLE: (503, _("The model could not be loaded. Try again later.")),
    FailureCode.ADAPTER_UNAVAILABLE: (503, _("The fine-tuned part of this model could not be loaded. Try again later.")),
    FailureCode.ENGINE_DIED: (502, _("The model stopped in the middle of the answer. Try again.")),
    FailureCode.NO_WORKER: (503, _("No worker is running that could answer. Try again later; nothing was charged.")),
    FailureCode.OVERLOADED: (503, _("The model has as much to do as it can take. Try again in a moment.")),
    FailureCode.INTERNAL: (500, _("The model failed. Try again; if it stays, tell the store's operator the request id.")),
}


class GenerationFailed(DomainError):
    code = "generation_failed"
    status = 500


def failure_of(finished: Mapping[str, Any]) -> GenerationFailed | None:
    """The error that a request's last event stands for, None when it ended as it should."""
    reason = finished["reason"]
    completion_tokens = finished.get("usage", {}).get("completion_tokens", 0)
    if reason in (FinishReason.STOP, FinishReason.LENGTH):
        return None
    if reason == FinishReason.DEADLINE:
        status, message, code = 504, _("The answer took longer than allowed and was stopped. Ask for fewer tokens."), "timeout"
    elif reason == FinishReason.CANCELLED:
        status, message, code = 499, _("The request was cancelled."), "cancelled"
    else:
        code = finished.get("failure") or FailureCode.INTERNAL
        status, message = _FAILURES.get(code, _FAILURES[FailureCode.INTERNAL])
    error = GenerationFailed(message, param="messages" if status == 400 else None, completion_tokens=completion_tokens)
    error.code, error.status = str(code), status
    return error


def usage_of(finished: Mapping[str, Any]) -> dict[str, Any]:
    usage = finished["usage"]
    prompt, completion = usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": usage.get("cached_tokens", 0)},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


@dataclass(frozen=True)
class Answer:
    """What all objects of one answer have in common."""

    request: str  # public id
    model: str  # as it was asked for
    fingerprint: str  # names the exact version that answered
    created: int  # unix time

    def completion(self, text: str, finished: Mapping[str, Any]) -> dict[str, Any]:
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finished["reason"]}
        return self._object("chat.completion", [choice]) | {"usage": usage_of(finished)}

    def chunk(self, delta: dict[str, str], *, finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return self._object("chat.completion.chunk", [choice])

    def usage_chunk(self, finished: Mapping[str, Any]) -> dict[str, Any]:
        return self._object("chat.completion.chunk", []) | {"usage": usage_of(finished)}

    def _object(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{self.request}",
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "choices": choices,
        }


DONE = b"data: [DONE]\n\n"


def sse(value: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


def sse_error(error: DomainError) -> bytes:
    """A failure after the first byte."""
    return sse(envelope(error))
