"""What a request gives the model to read, and how it is to be answered: taken, or refused with a reason."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from inference.protocol import FailureCode, GenerationRequest
from inference.sampling_params import InvalidSampling, SamplingParams
from inference.tokenizer import TemplateFailed

NOBODY = "\ue000"  # a user's message nobody writes, to find where a version's own part of a prompt ends


class Render(Protocol):
    """Makes the prompt for a conversation. Raises TemplateFailed."""

    def __call__(self, messages: Sequence[Mapping[str, Any]], *, tools: Sequence[Mapping[str, Any]] | None = None) -> list[int]: ...


class Encoder(Protocol):
    """What makes tokens of conversations and texts: the model's tokenizer, or a Renderer. Raises TemplateFailed, TokenizerError."""

    def render(self, messages: Sequence[Mapping[str, Any]], *, tools: Sequence[Mapping[str, Any]] | None = None) -> list[int]: ...

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]: ...

    def encode_plain(self, text: str) -> list[int]: ...


@dataclass(frozen=True)
class Prompt:
    """What the model reads for a request."""

    tokens: list[int]
    own: int = 0  # leading tokens that are the version's and not the user's
    received_at: float = field(default_factory=time.monotonic)  # when it was asked for


class RequestRefused(ValueError):
    """The engine does not take the request. `code` and `detail` are for whoever says so in the user's language."""

    def __init__(self, code: FailureCode, message: str, detail: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.detail = dict(detail or {})


def sampling_of(request: GenerationRequest, *, vocab_size: int) -> SamplingParams:
    try:
        params = SamplingParams.from_json(request.sampling)
        if (token := max(params.logit_bias, default=0)) >= vocab_size:
            raise InvalidSampling("logit_bias", token, f"of tokens from 0 to {vocab_size - 1}")
    except InvalidSampling as error:
        raise RequestRefused(FailureCode.INVALID_PARAMETER, str(error), {"param": error.name}) from error
    return params


def prompt_of(request: GenerationRequest, render: Render, *, vocab_size: int, context_length: int) -> list[int]:
    """The tokens the model reads. Raises RequestRefused when there are too many, or none, or wrong ones."""
    if request.prompt_tokens is not None:
        prompt = list(request.prompt_tokens)
        if not prompt or not all(type(token) is int and 0 <= token < vocab_size for token in prompt):
            message = f"prompt_tokens must be one or more numbers of tokens, from 0 to {vocab_size - 1}."
            raise RequestRefused(FailureCode.INVALID_PARAMETER, message, {"param": "prompt_tokens"})
    else:
        prompt = _rendered(request, render, vocab_size)
    if len(prompt) >= context_length:
        message = f"The conversation has {len(prompt)} tokens; this model's context holds {context_length}, its answer included."
        detail = {"prompt_tokens": len(prompt), "context_length": context_length}
        raise RequestRefused(FailureCode.CONTEXT_LENGTH_EXCEEDED, message, detail)
    return prompt


def _rendered(request: GenerationRequest, render: Render, vocab_size: int) -> list[int]:
    try:
        prompt = render(request.messages, tools=request.tools)
    except TemplateFailed as error:
        raise RequestRefused(FailureCode.TEMPLATE_FAILED, str(error)) from error
    if not prompt or max(prompt) >= vocab_size:
        raise RequestRefused(FailureCode.TEMPLATE_FAILED, "The model's tokenizer makes a prompt that is not of its vocabulary.")
    return prompt


def own_tokens(request: GenerationRequest, prompt: list[int], render: Render) -> int:
    """How many leading tokens of the prompt are the version's and not the user's."""
    if request.prompt_tokens is not None:
        return 0
    try:
        other = render([*request.messages[: request.own_messages], {"role": "user", "content": NOBODY}])
    except TemplateFailed:
        return 0
    return next((at for at, (a, b) in enumerate(zip(prompt, other, strict=False)) if a != b), min(len(prompt), len(other)))
