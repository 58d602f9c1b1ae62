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
from inference.conversations import FORBIDDEN, Messages
from inference.datasets import Use
from inference.examples import Example, Pair
from inference.model import GPT, LoraPath
from inference.protocol import MAX_SAMPLE_PROMPTS
from inference.records import Conversation, Preference
from inference.sources import read
from inference.tokenizer import TemplateFailed, Tokenizer, TokenizerError

SAMPLE_TOKENS = 40
LONGEST_PROMPT = 1024  # tokens: three for each character that a person may write, and what a template adds
OPENING_TOKENS = 12  # of a text of the data that is to be gone on with


@dataclass(frozen=True)
class Prompt:
    text: str  # as a person reads it
    tokens: Sequence[int]


def room_for_prompt(context_length: int) -> int:
    """The most tokens a prompt may have."""
    return min(LONGEST_PROMPT, context_length - SAMPLE_TOKENS)


def given(texts: Sequence[str], tokenizer: Tokenizer, *, use: Use, room: int) -> tuple[list[Prompt], list[str]]:
    """(prompts in a person's own words, those of them that the model cannot be asked). For a text they are its beginning."""
    found, unasked = list[Prompt](), list[str]()
    for text in texts[:MAX_SAMPLE_PROMPTS]:
        tokens = _tokens(tokenizer, text=text) if use == Use.TEXT else _tokens(tokenizer, messages=[{"role": "user", "content": text}])
        if 0 < len(tokens) <= room:
            found.append(Prompt(text, tokens))
        else:
            unasked.append(text)
    return found, unasked


def from_data(path: Path, tokenizer: Tokenizer, *, examples: Sequence[Example | Pair], use: Use, room: int, name: str = "") -> list[Prompt]:
    """The prompts of the first of these examples of a file that was checked."""
    prompts = _openings(examples, tokenizer) if use == Use.TEXT else _questions(path, tokenizer, {each.line for each in examples}, name)
    found: dict[str, Prompt] = {}
    for prompt in prompts:
        if 0 < len(prompt.tokens) <= room:
            found.setdefault(prompt.text, prompt)
        if len(found) == MAX_SAMPLE_PROMPTS:
            break
    return list(found.values())


def _openings(examples: Sequence[Example | Pair], tokenizer: Tokenizer) -> Iterator[Prompt]:
    for example in examples:
        if isinstance(example, Example):
            tokens = list(example.tokens[:OPENING_TOKENS])
            yield Prompt(readable(tokenizer.decode(tokens)), tokens)


def _questions(path: Path, tokenizer: Tokenizer, lines: set[int], name: str) -> Iterator[Prompt]:
    for record in read(path, name=name):
        if isinstance(record, Conversation | Preference) and record.line in lines:
            messages = asked_in(record)
            said = [message["content"] for message in messages if message["role"] == "user"]
            yield Prompt(said[-1] if said else "", _tokens(tokenizer, messages=messages))


def asked_in(record: Conversation | Preference) -> Messages:
    """What stands before the last answer."""
    if isinstance(record, Preference):
        return record.prompt
    last = max(at for at, message in enumerate(record.messages) if message["role"] == "assistant")
    return record.messages[:last]


def _tokens(tokenizer: Tokenizer, *, text: str = "", messages: Messages | None = None) -> list[int]:
    """None of what the tokenizer or its template cannot read."""
    try:
        return tokenizer.encode_plain(text) if messages is None else tokenizer.render(messages)
    except (TemplateFailed, TokenizerError):
        return []


def readable(text: str) -> str:
    """With U+FFFD for what is no character of a text: an answer may hold any byte, and not every database takes them."""
    return FORBIDDEN.sub("\ufffd", text)


class Samples:
    """Answers of the model as it stands, each of at most SAMPLE_TOKENS tokens."""

    def __init__(self, model: GPT, tokenizer: Tokenizer, prompts: Sequence[Prompt], *, lora: LoraPath | None) -> None:
        """`prompts` of at most `room_for_prompt` tokens."""
        self.prompts = list(prompts)
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
        return [readable(self._tokenizer.decode(tokens)) for tokens in said]

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
