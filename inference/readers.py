"""What is read off a request's prompt, and the prompt of those requests that are for that alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from inference.attended import AttentionWeights, attended_prompt
from inference.config import GPTConfig
from inference.prompts import Encoder, Prompt, RequestRefused, own_tokens, prompt_of
from inference.protocol import FailureCode, GenerationRequest
from inference.reading import Embedding, PromptLogprobs, Reader
from inference.sampling_params import SamplingParams
from inference.tokenizer import TemplateFailed, Tokenizer, TokenizerError


def reader_of(
    request: GenerationRequest,
    prompt: Sequence[int],
    params: SamplingParams,
    *,
    tokenizer: Tokenizer,
    config: GPTConfig,
    logits: Callable[[Tensor], Tensor],
) -> Reader | None:
    """Raises RequestRefused for what the model does not have."""
    if request.attention is not None:
        return AttentionWeights(prompt, tokenizer, config, asked=request.attention)
    if request.embedding is not None:
        return Embedding(_dimensions(request.embedding.get("dimensions"), config.hidden_size))
    return None if params.prompt_logprobs is None else PromptLogprobs(prompt, logits, top=params.prompt_logprobs)


def prompt_read(request: GenerationRequest, encoder: Encoder, *, vocab_size: int, context_length: int) -> Prompt:
    """What the model reads, without a chat template where there is to be no answer. Raises RequestRefused."""
    if request.attention is not None:
        return Prompt(attended_prompt(request, encoder))
    sizes = {"vocab_size": vocab_size, "context_length": context_length}
    if request.embedding is not None:
        return Prompt(prompt_of(request, partial(_text_alone, encoder), **sizes))
    tokens = prompt_of(request, encoder.render, **sizes)
    return Prompt(tokens, own_tokens(request, tokens, encoder.render))


def _text_alone(encoder: Encoder, messages: Sequence[Mapping[str, Any]], *, tools: Sequence[Mapping[str, Any]] | None = None) -> list[int]:
    """The last message's text, as `Engine.embed` of the library reads one. Raises TemplateFailed."""
    try:
        return encoder.encode(messages[-1]["content"], add_special_tokens=True)
    except TokenizerError as error:
        raise TemplateFailed(str(error)) from error


def _dimensions(asked: int | None, size: int) -> int | None:
    if asked is not None and not (type(asked) is int and 1 <= asked <= size):
        message = f"dimensions must be a whole number from 1 to {size}."
        raise RequestRefused(FailureCode.INVALID_PARAMETER, message, {"param": "dimensions", "dimensions": size})
    return asked
