"""What a request becomes in vLLM's protocol, and what has no place there.

Everything is said: what is not, vLLM takes from the model's generation_config.json.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import Any

from inference.prompts import RequestRefused
from inference.protocol import FailureCode, GenerationRequest
from inference.sampling_params import SamplingParams

MAX_TEMPERATURE = 2.0  # what vLLM allows
LEAST_TOP_P = 1e-6  # vLLM allows no 0, which leaves the most probable token
GREEDY_BELOW = 1e-5  # a temperature, as in vLLM and in the core


def check_known(params: SamplingParams) -> None:
    """Raises RequestRefused, by name, for what a vLLM server cannot be asked."""
    if params.prompt_logprobs is not None:
        raise _refusal("prompt_logprobs", "This model's engine does not tell log-probabilities of a prompt (prompt_logprobs).")
    if params.temperature > MAX_TEMPERATURE:
        raise _refusal("temperature", f"temperature is {params.temperature}; this model's engine allows at most {MAX_TEMPERATURE}.")
    if params.grammar is not None:  # a rule that was not tried could end the server for everybody
        reason = "this model's engine does not hold answers to rules"
        message = f"An answer cannot be made to follow the {params.grammar.kind} asked for: {reason}."
        raise RequestRefused(FailureCode.GRAMMAR_UNSUPPORTED, message, {"reason": reason})


def is_greedy(params: SamplingParams) -> bool:
    return params.temperature < GREEDY_BELOW


def completion_body(
    request: GenerationRequest, params: SamplingParams, *, prompt: list[int], max_tokens: int, eos_ids: Collection[int]
) -> dict[str, Any]:
    """The body of POST /v1/completions, but for `model`."""
    body: dict[str, Any] = {
        "prompt": prompt,
        "add_special_tokens": False,
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_token_ids": True,
        "max_tokens": max_tokens,
        "min_tokens": min(params.min_tokens, max_tokens),
        "temperature": params.temperature,
        "top_p": max(params.top_p, LEAST_TOP_P),
        "top_k": params.top_k,
        "min_p": params.min_p,
        "presence_penalty": params.presence_penalty,
        "frequency_penalty": params.frequency_penalty,
        "repetition_penalty": 1.0,
        "ignore_eos": params.ignore_eos,
        "stop": [stop for stop in params.stop if stop],
        "stop_token_ids": [] if params.ignore_eos else sorted(eos_ids),
        "n": 1 if is_greedy(params) else params.n,  # vLLM refuses to be greedy more than once: the answers are one
        "cache_salt": _salt(request),
    }
    if params.seed is not None:
        body["seed"] = params.seed
    if params.logit_bias:
        body["logit_bias"] = {str(token): bias for token, bias in params.logit_bias.items()}
    if params.logprobs is not None:
        body |= {"logprobs": params.logprobs, "return_tokens_as_token_ids": True}
    return body


def _refusal(param: str, message: str) -> RequestRefused:
    return RequestRefused(FailureCode.INVALID_PARAMETER, message, {"param": param})


def _salt(request: GenerationRequest) -> str:
    """Keeps tenants' cached prefixes apart: none can find out by time what another's prompts begin with."""
    return hashlib.sha256(f"{request.tenant}/{request.version}".encode()).hexdigest()
