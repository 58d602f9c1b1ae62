"""Records as the tokens a model is trained on, and which of them it is taught to say."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from inference.conversations import Messages
from inference.problems import BadExample, Place, ProblemCode
from inference.records import Document, Preference, same_answers
from inference.tokenizer import TemplateFailed, TokenizerError


class ChatTokenizer(Protocol):
    """What this module needs of `inference.tokenizer.Tokenizer`."""

    @property
    def eos_ids(self) -> Any: ...

    @property
    def end_id(self) -> int | None: ...

    def render(self, messages: list[dict[str, str]], add_generation_prompt: bool = True) -> list[int]: ...

    def encode_plain(self, text: str) -> list[int]: ...

    def decode(self, tokens: list[int]) -> str: ...


@dataclass(frozen=True)
class Example:
    """One conversation or text as tokens; `trained[i]` says whether the model is taught to produce token i."""

    tokens: Sequence[int]
    trained: Sequence[int]  # 0 or 1
    line: int = 0

    @classmethod
    def compact(cls, tokens: Sequence[int], trained: Sequence[bool], line: int = 0) -> Example:
        """In five bytes for each token, where tuples of Python's numbers take 44: all of a corpus is in memory."""
        return cls(array("i", tokens), bytes(trained), line)

    @property
    def trained_tokens(self) -> int:
        return sum(self.trained)


@dataclass(frozen=True)
class Pair:
    """The same prompt with a better and a worse answer; only the answers are `trained`."""

    chosen: Example
    rejected: Example

    @property
    def longest(self) -> int:
        return max(len(self.chosen.tokens), len(self.rejected.tokens))

    @property
    def line(self) -> int:
        return self.chosen.line


def length(example: Example | Pair) -> int:
    """In tokens; of a pair, that of its longer side."""
    return example.longest if isinstance(example, Pair) else len(example.tokens)


def digest(examples: Sequence[Example] | Sequence[Pair]) -> str:
    """Names what is learned: the tokens in their order, and which of them are trained."""
    found = hashlib.blake2b(digest_size=16)
    for example in examples:
        for side in (example.chosen, example.rejected) if isinstance(example, Pair) else (example,):
            found.update(array("q", [len(side.tokens), *side.tokens]).tobytes())
            found.update(bytes(side.trained))
    return found.hexdigest()


def encode(messages: Messages, tokenizer: ChatTokenizer, *, line: int = 0) -> Example:
    """Tokens of a conversation and which of them are the assistant's.

    The template is rendered up to each assistant message with the generation prompt, and after it; what the second has
    beyond the first is what the model must learn to say. Nothing is told apart by token id, since many models pad with
    their end token. Raises BadExample when an earlier rendering is not the beginning of a later one: then the
    model would be trained on other text than it is asked with.
    """
    tokens: list[int] = []
    trained: list[bool] = []
    for index, message in enumerate(messages):
        if message["role"] == "assistant":
            prompt, whole = _rendered(messages[: index + 1], tokenizer)
            if prompt[: len(tokens)] != tokens:
                raise _not_prefix(index)
            trained += [False] * (len(prompt) - len(tokens)) + _answered(whole[len(prompt) :], tokenizer.eos_ids)
            tokens = whole
    return Example.compact(tokens, trained, line)


def encode_pair(preference: Preference, tokenizer: ChatTokenizer) -> Pair:
    """Both answers after the prompt. Answers that an earlier turn gave are not learned. Raises BadExample."""
    sides = []
    for answer in (preference.chosen, preference.rejected):
        prompt, whole = _rendered([*preference.prompt, {"role": "assistant", "content": answer}], tokenizer)
        trained = [False] * len(prompt) + _answered(whole[len(prompt) :], tokenizer.eos_ids)
        sides.append(Example.compact(whole, trained, preference.line))
    if sides[0] == sides[1]:
        raise same_answers()  # a template may trim what told them apart
    return Pair(chosen=sides[0], rejected=sides[1])


def encode_document(document: Document, tokenizer: ChatTokenizer, *, max_length: int) -> list[Example]:
    """All of a text in pieces of at most `max_length` tokens, its last token the end token. The first of a piece is only read: nothing
    stands before it from which it could be told. Raises BadExample.
    """
    try:
        tokens = tokenizer.encode_plain(document.text)
    except TokenizerError as error:
        raise BadExample(ProblemCode.TEMPLATE_FAILED, str(error)) from error
    if document.ends and tokenizer.end_id is not None:
        tokens.append(tokenizer.end_id)
    pieces = [tokens[at : at + max_length] for at in range(0, len(tokens), max_length)]
    return [Example.compact(piece, [at > 0 for at in range(len(piece))], document.line) for piece in pieces]


def _rendered(messages: Messages, tokenizer: ChatTokenizer) -> tuple[list[int], list[int]]:
    """(what the last answer is asked with, that and the answer)"""
    index = len(messages) - 1
    try:
        prompt = tokenizer.render(messages[:-1], add_generation_prompt=True)
        whole = tokenizer.render(messages, add_generation_prompt=False)
    except TemplateFailed as error:
        raise BadExample(ProblemCode.TEMPLATE_FAILED, str(error), place=Place((), message=index)) from error
    if whole[: len(prompt)] != prompt:
        raise _not_prefix(index)
    return prompt, whole


def _not_prefix(index: int) -> BadExample:
    return BadExample(
        ProblemCode.TEMPLATE_NOT_PREFIX,
        f"The chat template renders the conversation before message {index + 1} differently once that message is there, "
        "so its answer cannot be told from its question. Leading spaces or line ends in the answer can cause this.",
        detail={"message": index + 1},
    )


def _answered(answer: list[int], eos_ids: Any) -> list[bool]:
    """What of an answer the model says itself: all up to the end token, not the line end a template adds."""
    spoken = next((at + 1 for at in range(len(answer) - 1, -1, -1) if answer[at] in eos_ids), len(answer))
    return [True] * spoken + [False] * (len(answer) - spoken)


def runs(example: Example, tokenizer: ChatTokenizer) -> Iterator[dict[str, Any]]:
    """The example as text in runs of {"text", "trained"}, for a preview that greys what is not learned."""
    start = 0
    for end in range(1, len(example.tokens) + 1):
        if end == len(example.tokens) or example.trained[end] != example.trained[start]:
            yield {"text": tokenizer.decode(list(example.tokens[start:end])), "trained": bool(example.trained[start])}
            start = end


def pair_runs(pair: Pair, tokenizer: ChatTokenizer) -> Iterator[dict[str, Any]]:
    """The prompt and the chosen answer as `runs` has them, then what is trained of the other, marked "rejected"."""
    yield from runs(pair.chosen, tokenizer)
    for run in runs(pair.rejected, tokenizer):
        if run["trained"]:
            yield run | {"rejected": True}
