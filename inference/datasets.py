"""Training data: checked examples from a file, or exactly what is wrong with it.

A file holds records of one format (`inference.records`) and is read record by record with bounded memory. One that is
wrong is an error with its line, column and reason; a conversation longer than the model is trained on is left out and
counted, never cut: a cut answer teaches the model to stop in mid-sentence. Plain text has no such end, so a long text
is trained on in pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from inference.dataset_report import DatasetReport, Tally
from inference.examples import ChatTokenizer, Example, Pair, encode, encode_document, encode_pair, length
from inference.problems import BadExample, Problem, ProblemCode, UnusableDataset
from inference.records import Conversation, Document, Format, Preference, Record
from inference.sources import container_of, read


class Use(StrEnum):
    """What is learned from a file; each takes formats of its own."""

    SUPERVISED = "supervised"  # what to answer
    PREFERENCE = "preference"  # which of two answers is better
    TEXT = "text"  # how a text goes on


FORMATS = {
    Use.SUPERVISED: frozenset({Format.CHAT, Format.COMPLETION}),
    Use.PREFERENCE: frozenset({Format.PREFERENCE}),
    Use.TEXT: frozenset({Format.TEXT}),
}


# ---------------------------------------------------------------- scanning


@dataclass(frozen=True)
class Found:
    """A record and what is trained of it: one example, a pair, or the pieces of a text."""

    record: Record
    encoded: tuple[Example | Pair, ...]


def scan(path: Path, tokenizer: ChatTokenizer, *, max_length: int, use: Use, name: str = "") -> Iterator[Found | Problem]:
    """Every record of the file in order, or the problem in its place. Ends at once with a file that is not for this use."""
    for record in read(path, name=name):
        if isinstance(record, Problem):
            yield record
            continue
        if record.format not in FORMATS[use]:
            yield _wrong_format(record, use)
            return
        try:
            encoded = _encoded(record, tokenizer, max_length)
        except BadExample as error:
            yield error.at(record.line)
            continue
        if (tokens := max(map(length, encoded), default=0)) > max_length:
            yield _too_long(record.line, tokens=tokens, limit=max_length)
            continue
        yield Found(record, encoded)


def _encoded(record: Record, tokenizer: ChatTokenizer, max_length: int) -> tuple[Example | Pair, ...]:
    match record:
        case Conversation():
            return (encode(record.messages, tokenizer, line=record.line),)
        case Preference():
            return (encode_pair(record, tokenizer),)
        case Document():
            return tuple(encode_document(record, tokenizer, max_length=max_length))


def _wrong_format(record: Record, use: Use) -> Problem:
    allowed = " or ".join(sorted(FORMATS[use]))
    message = f"The file holds data of the format {record.format}; to train this way it must be {allowed}."
    return Problem(record.line, 1, ProblemCode.WRONG_FORMAT, message, {"format": str(record.format), "use": str(use)})


def _too_long(line: int, *, tokens: int, limit: int) -> Problem:
    message = f"The example has {tokens} tokens, more than the {limit} trained on; it is left out."
    return Problem(line, 1, ProblemCode.TOO_LONG, message, {"tokens": tokens, "limit": limit}, skips=True)


# ---------------------------------------------------------------- loading


def load_examples(path: Path, tokenizer: ChatTokenizer, *, max_length: int, name: str = "") -> list[Example]:
    """All conversations that fit. Raises UnusableDataset at the first error, or when nothing is left to train on."""
    return [found for found in _loaded(path, tokenizer, max_length, Use.SUPERVISED, name) if isinstance(found, Example)]


def load_pairs(path: Path, tokenizer: ChatTokenizer, *, max_length: int, name: str = "") -> list[Pair]:
    """All preferences both of whose sides fit. Raises UnusableDataset as `load_examples` does."""
    return [found for found in _loaded(path, tokenizer, max_length, Use.PREFERENCE, name) if isinstance(found, Pair)]


def load_texts(path: Path, tokenizer: ChatTokenizer, *, max_length: int, name: str = "") -> list[Example]:
    """All texts, in pieces of at most `max_length` tokens all of which are trained. Raises UnusableDataset as `load_examples` does."""
    return [found for found in _loaded(path, tokenizer, max_length, Use.TEXT, name) if isinstance(found, Example)]


def load(path: Path, tokenizer: ChatTokenizer, *, max_length: int, use: Use, name: str = "") -> list[Example] | list[Pair]:
    """What is learned from the file. Raises UnusableDataset as `load_examples` does."""
    loaders: dict[Use, Callable[..., list[Example] | list[Pair]]] = {
        Use.SUPERVISED: load_examples,
        Use.PREFERENCE: load_pairs,
        Use.TEXT: load_texts,
    }
    return loaders[use](path, tokenizer, max_length=max_length, name=name)


def texts(path: Path, *, name: str = "") -> Iterator[str]:
    """All texts as they stand in the file; one of MAX_PART_CHARS and more comes in parts. Raises UnusableDataset at the first error."""
    for record in read(path, name=name):
        if isinstance(record, Problem):
            raise UnusableDataset(record)
        if not isinstance(record, Document):
            raise UnusableDataset(_wrong_format(record, Use.TEXT))
        yield record.text


def readable_texts(path: Path, *, name: str = "") -> Iterator[str]:
    """Those texts among the records that can be read; what is wrong with the others is for `validate` to say."""
    for record in read(path, name=name):
        if isinstance(record, Document):
            yield record.text


def _loaded(path: Path, tokenizer: ChatTokenizer, max_length: int, use: Use, name: str) -> list[Example | Pair]:
    loaded: list[Example | Pair] = []
    for found in scan(path, tokenizer, max_length=max_length, use=use, name=name):
        if not isinstance(found, Problem):
            loaded += found.encoded
        elif not found.skips:
            raise UnusableDataset(found)
    if not loaded:
        raise UnusableDataset(Problem(1, 1, ProblemCode.NO_EXAMPLES, "The file has no example that can be trained on."))
    return loaded


# ---------------------------------------------------------------- validation


def validate(
    path: Path,
    tokenizer: ChatTokenizer,
    *,
    max_length: int,
    use: Use = Use.SUPERVISED,
    name: str = "",
    validation_share: float = 0.1,
    seed: int = 1,
) -> DatasetReport:
    """Reads the whole file once, keeping counts, a digest and a sketch per record and the first problems in memory.

    `validation_share` and `seed` are those of the run to come: they say which examples it will hold out.
    """
    tally = Tally()
    for found in scan(path, tokenizer, max_length=max_length, use=use, name=name):
        if isinstance(found, Problem):
            tally.add_problem(found)
        else:
            tally.add(found.record, found.encoded, tokenizer)
    return tally.report(str(container_of(path, name=name)), str(use), validation_share=validation_share, seed=seed)
