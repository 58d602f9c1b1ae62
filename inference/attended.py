"""How the tokens of a short text look at each other in one head of one layer, read while a model computes them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from inference.attention import visible
from inference.config import GPTConfig
from inference.prompts import Encoder, RequestRefused
from inference.protocol import MAX_ATTENDED_TOKENS, Attended, FailureCode, GenerationRequest
from inference.reading import Reader
from inference.runner import Watched
from inference.tokenizer import TemplateFailed, Tokenizer, TokenizerError

DECIMALS = 4


class AttentionWeights(Reader):
    """softmax(QKᵀ/√d) of one head of one layer: how much each token takes from itself and from each one before it."""

    generates = False

    def __init__(self, prompt: Sequence[int], tokenizer: Tokenizer, config: GPTConfig, *, asked: Mapping[str, int]) -> None:
        """asked: {"layer", "head"}, from 0. Raises RequestRefused for one that the model does not have."""
        for name, most in (("layer", config.layers), ("head", config.heads)):
            if type(asked.get(name)) is not int or not 0 <= asked[name] < most:
                message = f"{name} must be a whole number from 0 to {most - 1}."
                raise RequestRefused(
                    FailureCode.INVALID_PARAMETER, message, {"param": name, "layers": config.layers, "heads": config.heads}
                )
        self.layer, self._head = asked["layer"], asked["head"]
        self._prompt = prompt
        self._tokenizer = tokenizer
        self._config = config
        self._queries: list[Tensor] = []
        self._keys: list[Tensor] = []

    def look(self, queries: Tensor, keys: Tensor, start: int) -> None:
        if start == 0:
            self._queries, self._keys = [], []
        group = queries.shape[1] // keys.shape[1]
        self._queries.append(queries[:, self._head].float().cpu())
        self._keys.append(keys[:, self._head // group].float().cpu())

    @property
    def is_finite(self) -> bool:
        return all(bool(part.isfinite().all()) for part in (*self._queries, *self._keys))

    def told(self) -> Attended:
        rows = [[round(weight, DECIMALS) for weight in row[: at + 1]] for at, row in enumerate(self.weights().tolist())]
        tokens = [self._tokenizer.vocabulary.text_of(token) for token in self._prompt]
        assert self.layer is not None
        return Attended(tokens, rows, self.layer, self._head, layers=self._config.layers, heads=self._config.heads)

    def weights(self) -> Tensor:
        """float32 [n, n]; each row sums to 1, and is 0 where its token does not see."""
        q, k = torch.cat(self._queries), torch.cat(self._keys)
        scores = q @ k.T * (self._config.query_scale / math.sqrt(q.shape[1]))
        assert self.layer is not None
        seen = visible(torch.arange(len(q)), len(k), self._config.windows[self.layer])
        return scores.masked_fill(~seen, -math.inf).softmax(dim=-1)


def attended_prompt(request: GenerationRequest, encoder: Encoder) -> list[int]:
    """The tokens of the last message as it stands, without a chat template. Raises RequestRefused."""
    try:
        prompt = encoder.encode_plain(request.messages[-1]["content"])
    except (TemplateFailed, TokenizerError) as error:
        raise RequestRefused(FailureCode.TEMPLATE_FAILED, str(error)) from error
    if not 1 <= len(prompt) <= MAX_ATTENDED_TOKENS:
        message = f"The text has {len(prompt)} tokens; attention is shown for 1 to {MAX_ATTENDED_TOKENS}."
        detail = {"prompt_tokens": len(prompt), "context_length": MAX_ATTENDED_TOKENS}
        raise RequestRefused(FailureCode.CONTEXT_LENGTH_EXCEEDED, message, detail)
    return prompt


def watched_by(readers: Iterable[Reader | None]) -> Watched | None:
    """What a step has to show them; None when nobody looks."""
    layers = {reader.layer for reader in readers if reader is not None and reader.layer is not None}
    return Watched(layers) if layers else None
