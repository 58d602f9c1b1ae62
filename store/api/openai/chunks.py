"""A generation's events in the words of the OpenAI protocol: the completion object, and the chunks of a stream."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from inference.protocol import FailureCode, FinishReason
from store.api.errors import envelope
from store.api.openai.spoken import Spoken
from store.errors import DomainError
from store.generation import failures


class GenerationFailed(DomainError):
    def __init__(self, message: str | Promise, *, status: int, code: str, param: str | None = None) -> None:
        super().__init__(message, param=param or ("messages" if status == 400 else None))
        self.status = status
        self.code = code


def failure_of(finished: Mapping[str, Any], *, rule: str) -> GenerationFailed | None:
    """The error that a request's last event stands for, None when it ended as it should. `rule` names the parameter with the answer's."""
    reason = finished["reason"]
    if reason in (FinishReason.STOP, FinishReason.LENGTH):
        return None
    if reason == FinishReason.DEADLINE:
        return GenerationFailed(failures.OVERDUE, status=504, code="timeout")
    if reason == FinishReason.CANCELLED:
        return GenerationFailed(_("The request was cancelled."), status=499, code="cancelled")
    code = finished.get("failure") or FailureCode.INTERNAL
    status, message = failures.said(finished)
    param = finished.get("detail", {}).get("param") if code == FailureCode.INVALID_PARAMETER else None
    if code == FailureCode.GRAMMAR_UNSUPPORTED:
        param = rule
    return GenerationFailed(message, status=status, code=str(code), param=param)


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

    def completion(self, spoken: Iterable[Spoken], finished: Mapping[str, Any]) -> dict[str, Any]:
        choices = [
            {
                "index": one.number,
                "message": one.message(),
                "logprobs": _logprobs(one.logprobs),
                "finish_reason": one.finish_reason,
            }
            for one in spoken
        ]
        return self._object("chat.completion", choices) | {"usage": usage_of(finished)}

    def chunk(
        self, number: int, delta: Mapping[str, Any], *, logprobs: list[dict[str, Any]] | None = None, finish_reason: str | None = None
    ) -> dict[str, Any]:
        """A piece of the choice with this number."""
        choice = {"index": number, "delta": delta, "logprobs": _logprobs(logprobs), "finish_reason": finish_reason}
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


def _logprobs(tokens: list[dict[str, Any]] | None) -> dict[str, Any] | None:
    return None if tokens is None else {"content": tokens, "refusal": None}


DONE = b"data: [DONE]\n\n"


def sse(value: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


def sse_error(error: DomainError) -> bytes:
    """A failure after the first byte."""
    return sse(envelope(error))
