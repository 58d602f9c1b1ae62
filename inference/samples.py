"""What a model answers to a few fixed prompts while it is trained, for people to see what it has learned.

The likeliest token is taken each time, so no random number is drawn: a run is the same with and without samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from inference.attention import KeyValueStore, PagedAttention, Piece
from inference.cache import BLOCK_SIZE
from inference.datasets import Use
from inference.model import GPT, LoraPath
from inference.problems import Problem
from inference.protocol import MAX_SAMPLE_PROMPTS
from inference.records import Conversation, Document, Preference, Record
from inference.sources import read
from inference.tokenizer import TemplateFailed, Tokenizer, TokenizerError

SAMPLE_TOKENS = 40
LONGEST_PROMPT = 256  # tokens; who learns from longer ones sees the short ones
OPENING_TOKENS = 12  # of a text that is to be gone on with


@dataclass(frozen=True)
class Prompt:
    text: str  # as a person reads it
    tokens: Sequence[int]


def given(texts: Sequence[str], tokenizer: Tokenizer, *, use: Use) -> list[Prompt]:
    """Prompts in a person's own words: questions, or beginnings of a text. Those the model cannot be asked are left out."""
    as_text = use == Use.TEXT
    found = [_prompt(text, tokenizer, [{"role": "user", "content": text}] if not as_text else None) for text in texts]
    return [prompt for prompt in found if prompt is not None][:MAX_SAMPLE_PROMPTS]


def from_data(path: Path, tokenizer: Tokenizer, *, lines: Sequence[int], name: str = "") -> list[Prompt]:
    """The prompts of the first of these lines of a file that was checked."""
    wanted, found = set(lines), list[Prompt]()
    for record in read(path, name=name):
        if isinstance(record, Problem) or record.line not in wanted:
            continue
        prompt = _prompt_of(record, tokenizer)
        if prompt is not None and prompt.text not in {other.text for other in found}:
            found.append(prompt)
        wanted.discard(record.line)
        if len(found) == MAX_SAMPLE_PROMPTS or not wanted:
            break
    return found


def _prompt_of(record: Record, tokenizer: Tokenizer) -> Prompt | None:
    match record:
        case Conversation():
            last = max(at for at, message in enumerate(record.messages) if message["role"] == "assistant")
            messages = record.messages[:last]
        case Preference():
            messages = record.prompt
        case Document():
            return _prompt(record.text, tokenizer, None)
    asked = [message["content"] for message in messages if message["role"] == "user"]
    return _prompt(asked[-1] if asked else "", tokenizer, messages)


def _prompt(text: str, tokenizer: Tokenizer, messages: Sequence[dict[str, str]] | None) -> Prompt | None:
    try:
        tokens = tokenizer.encode_plain(text)[:OPENING_TOKENS] if messages is None else tokenizer.render(messages)
    except (TemplateFailed, TokenizerError):
        return None
    if messages is None:
        text = tokenizer.decode(tokens)
    return Prompt(text, tokens) if 0 < len(tokens) <= LONGEST_PROMPT else None


class Samples:
    """Answers of the model as it stands, each of at most SAMPLE_TOKENS tokens."""

    def __init__(self, model: GPT, tokenizer: Tokenizer, prompts: Sequence[Prompt], *, lora: LoraPath | None) -> None:
        room = model.config.context_length - SAMPLE_TOKENS
        self.prompts = [prompt for prompt in prompts if len(prompt.tokens) <= room]
        self._model, self._tokenizer, self._lora = model, tokenizer, lora

    @torch.no_grad()
    def answers(self, after_step: Callable[[], object]) -> list[str]:
        """One for each prompt. Calls `after_step` after each token, so that it can be watched and ended."""
        said: list[list[int]] = [[] for _ in self.prompts]
        places = list(self._places())
        store = self._store(sum(map(len, places)))
        going = [(at, list(prompt.tokens), 0) for at, prompt in enumerate(self.prompts)]  # (whose, tokens to read, how many before)
        while going:
            pieces = [Piece(start, len(tokens), places[at]) for at, tokens, start in going]
            best = self._next([tokens for _, tokens, _ in going], pieces, store)
            after_step()
            there = zip(going, best, strict=True)
            going = []
            for (at, tokens, start), token in there:
                if token not in self._tokenizer.eos_ids:
                    said[at].append(token)
                    if len(said[at]) < SAMPLE_TOKENS:
                        going.append((at, [token], start + len(tokens)))
        return [self._tokenizer.decode(tokens) for tokens in said]

    def _next(self, tokens: Sequence[Sequence[int]], pieces: Sequence[Piece], store: KeyValueStore) -> list[int]:
        """The likeliest token after each piece."""
        positions = [position for piece in pieces for position in range(piece.start, piece.end)]
        read = self._tensor([token for some in tokens for token in some])
        hidden = self._model(read, self._tensor(positions), PagedAttention(store, pieces), self._lora)
        ends = self._tensor([piece.count for piece in pieces]).cumsum(0) - 1
        best: list[int] = self._model.sharp_logits(hidden[ends]).argmax(-1).tolist()
        return best

    def _places(self) -> Iterator[range]:
        """The blocks of each prompt and its answer; block 0 is nobody's."""
        first = 1
        for prompt in self.prompts:
            count = -(-(len(prompt.tokens) + SAMPLE_TOKENS) // BLOCK_SIZE)
            yield range(first, first + count)
            first += count

    def _store(self, blocks: int) -> KeyValueStore:
        model = self._model
        return KeyValueStore(model.config, blocks=blocks, block_size=BLOCK_SIZE, dtype=model.dtype, device=model.device)

    def _tensor(self, values: Sequence[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self._model.device)
