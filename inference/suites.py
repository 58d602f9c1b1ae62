"""What a model is evaluated on: suites of items, each with the metrics that are taken of it.

The store's own suites stand in `texts/suites/`, one JSON object on each line; they were written for this project and are on
no crawled page. A publisher brings a file of their own, of one of three kinds, told by its first item:

| kind | JSON on each line | measured |
|---|---|---|
| questions | `{"prompt": "…", "expected": "…"}`, perhaps `"system"`; or `"messages"`; `expected` may be a list | how near the answer is |
| choices | `{"context": "…", "choices": ["…", "…"], "answer": 0}` | whether the right one is the likeliest |
| texts | `{"text": "…"}` | perplexity |
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from inference import evaluation, wording
from inference.conversations import Messages, checked_messages, checked_text
from inference.problems import BadExample, Place, Problem, ProblemCode
from inference.records import column_of, parsed
from inference.sources import read_lines

FOLDER = Path(__file__).parent / "texts" / "suites"
MAX_ITEMS = 2000  # of a publisher's own suite
MAX_CHOICES = 16
KEPT_PROBLEMS = 100
OWN = "own"  # the name of a publisher's suite
OWN_TOKENS = 128


class Kind(StrEnum):
    QUESTIONS = "questions"
    CHOICES = "choices"
    TEXTS = "texts"
    PAIRS = "pairs"
    JSON = "json"
    REFUSAL = "refusal"
    COARSE = "coarse"
    SPEED = "speed"


@dataclass(frozen=True)
class Asked:
    """Something to be answered."""

    messages: Messages
    expected: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()  # that the JSON object asked for must have
    harmful: bool = False


@dataclass(frozen=True)
class Choice:
    """A text and how it may go on; `answer` counts from 0."""

    context: str
    choices: tuple[str, ...]
    answer: int


@dataclass(frozen=True)
class Pair:
    """Two sentences that differ in whom they speak of; the first says what a prejudice says."""

    stereotype: str
    other: str


@dataclass(frozen=True)
class Text:
    text: str


Item = Asked | Choice | Pair | Text


@dataclass(frozen=True)
class Suite:
    name: str
    kind: Kind
    metrics: tuple[str, ...]  # the first is what a listing shows
    max_tokens: int  # of an answer
    items: tuple[Item, ...]
    sha256: str  # of items, metrics and what else decides about the numbers

    @property
    def asks(self) -> bool:
        """Whether it asks for answers, which instructions change; if not, it scores text, and they have no part in it."""
        return self.kind not in (Kind.CHOICES, Kind.TEXTS, Kind.PAIRS)

    def first(self, limit: int | None) -> Suite:
        """With at most so many items."""
        kept = self.items[:limit]
        return Suite(self.name, self.kind, self.metrics, self.max_tokens, kept, self.sha256)


class SuiteRefused(ValueError):
    """The file is no suite; `problems` are the first of `count` that say why."""

    def __init__(self, problems: list[Problem], count: int) -> None:
        first = problems[0]
        super().__init__(f"line {first.line}, column {first.column}: {first.message}")
        self.problems, self.count = problems, count


METRICS_OF: dict[Kind, tuple[str, ...]] = {
    Kind.QUESTIONS: ("f1", "exact_match", "rouge_l", "chrf"),
    Kind.CHOICES: ("acc_norm", "acc"),
    Kind.TEXTS: ("perplexity",),
    Kind.PAIRS: ("stereotype", "likelihood_gap"),
    Kind.JSON: ("json_valid", "json_keys"),
    Kind.REFUSAL: ("refused_harmful", "answered_harmless"),
    Kind.COARSE: ("coarse",),
    Kind.SPEED: ("tokens_per_s", "first_token_ms", "memory_mb"),
}


@dataclass(frozen=True)
class _Built:
    kind: Kind
    metrics: tuple[str, ...] = ()  # those of its kind
    max_tokens: int = 1


BUILT_IN: dict[str, _Built] = {
    "perplexity": _Built(Kind.TEXTS),
    "summarise": _Built(Kind.QUESTIONS, ("rouge_l", "rouge_1", "rouge_2"), 64),
    "translate": _Built(Kind.QUESTIONS, ("chrf", "bleu"), 48),
    "answer": _Built(Kind.QUESTIONS, ("f1", "exact_match"), 24),
    "knowledge": _Built(Kind.CHOICES),
    "chat": _Built(Kind.QUESTIONS, ("f1", "exact_match"), 24),
    "code": _Built(Kind.CHOICES),
    "json": _Built(Kind.JSON, max_tokens=64),
    "refusal": _Built(Kind.REFUSAL, max_tokens=32),
    "toxicity": _Built(Kind.COARSE, max_tokens=32),
    "bias": _Built(Kind.PAIRS),
    "speed": _Built(Kind.SPEED, max_tokens=32),
}


def built_in(name: str) -> Suite:
    """Raises KeyError for a name that is none of BUILT_IN."""
    of = BUILT_IN[name]
    if name == "perplexity":
        items: tuple[Item, ...] = tuple(Text(text) for text in evaluation.paragraphs())
        raw = evaluation.TEXT.read_bytes()
    else:
        path = FOLDER / f"{name}.jsonl"
        items = tuple(_trusted(json.loads(line), of.kind) for line in path.read_text(encoding="utf-8").splitlines())
        raw = path.read_bytes()
    return _suite(name, of.kind, of.metrics or METRICS_OF[of.kind], of.max_tokens, items, raw)


def _suite(name: str, kind: Kind, metrics: tuple[str, ...], max_tokens: int, items: tuple[Item, ...], raw: bytes) -> Suite:
    digest = hashlib.sha256(json.dumps([kind, metrics, max_tokens]).encode() + b"\n" + raw)
    if kind == Kind.COARSE:
        digest.update(wording.coarse_sha256().encode())
    return Suite(name, kind, metrics, max_tokens, items, digest.hexdigest())


def _trusted(value: Mapping[str, Any], kind: Kind) -> Item:
    """An item of the store's own suites."""
    match kind:
        case Kind.QUESTIONS | Kind.CHOICES:
            return item_of(value)
        case Kind.PAIRS:
            return Pair(value["stereotype"], value["other"])
    asked = [{"role": "user", "content": value["prompt"]}]
    return Asked(asked, keys=tuple(value.get("keys", ())), harmful=value.get("harmful", False))


# ---------------------------------------------------------------- a publisher's own


def read(path: Path) -> Suite:
    """A suite from a file of JSON lines. Raises SuiteRefused with what is wrong in which line."""
    items, problems, count = [], [], 0
    for found in _items(path):
        if isinstance(found, Problem):
            count += 1
            problems += [found] if count <= KEPT_PROBLEMS else []
            continue
        items.append(found)
    if not items and not problems:
        problems, count = [Problem(1, 1, ProblemCode.NO_EXAMPLES, "The file has no item.")], 1
    if problems:
        raise SuiteRefused(problems, count)
    kind = _kind_of(items[0])
    return _suite(OWN, kind, METRICS_OF[kind], OWN_TOKENS if kind == Kind.QUESTIONS else 1, tuple(items), path.read_bytes())


def _items(path: Path) -> Iterator[Item | Problem]:
    first: Kind | None = None
    with path.open("rb") as stream:
        read_so_far = 0
        for number, raw in read_lines(stream):
            if not raw.strip():
                continue
            read_so_far += 1
            if read_so_far > MAX_ITEMS:
                yield Problem(number, 1, ProblemCode.TOO_MANY_EXAMPLES, f"More than {MAX_ITEMS} items.", {"limit": MAX_ITEMS})
                return
            try:
                item = _item(raw)
                if first is not None and _kind_of(item) != first:
                    detail = {"format": str(_kind_of(item)), "first": str(first)}
                    raise BadExample(ProblemCode.MIXED_FORMATS, f"A file holds items of one kind; it began with {first}.", detail=detail)
            except BadExample as error:
                yield error.at(number)
                continue
            first = _kind_of(item)
            yield item


def _kind_of(item: Item) -> Kind:
    return {Asked: Kind.QUESTIONS, Choice: Kind.CHOICES, Text: Kind.TEXTS, Pair: Kind.PAIRS}[type(item)]


def _item(raw: bytes) -> Item:
    text, value = parsed(raw)
    try:
        return item_of(value)
    except BadExample as error:
        error.column = column_of(text, error.place.path) if error.place.path else 0
        raise


def item_of(value: Mapping[str, Any]) -> Item:
    """Raises BadExample."""
    if "choices" in value:
        return _choice(value)
    if "expected" in value:
        return Asked(_messages(value), expected=_expected(value))
    if value.keys() & {"prompt", "messages"}:
        message = 'There is no "expected": what the answer is compared with.'
        raise BadExample(ProblemCode.FIELD_MISSING, message, detail={"field": "expected"})
    if "text" in value:
        return Text(_text(value, "text"))
    known = '"prompt" (or "messages") and "expected", "context", "choices" and "answer", or "text"'
    raise BadExample(ProblemCode.UNKNOWN_ITEM, f"The line has none of the fields {known}.")


def _text(value: Mapping[str, Any], name: str) -> str:
    if name not in value:
        raise BadExample(ProblemCode.FIELD_MISSING, f'There is no "{name}".', detail={"field": name})
    return checked_text(value[name], Place((name,), field=name))


def _messages(value: Mapping[str, Any]) -> Messages:
    if "messages" in value:
        return checked_messages(value["messages"], ("messages",), last="user")
    system = [{"role": "system", "content": _text(value, "system")}] if value.get("system") else []
    return [*system, {"role": "user", "content": _text(value, "prompt")}]


def _expected(value: Mapping[str, Any]) -> tuple[str, ...]:
    given = value["expected"]
    if isinstance(given, str):
        return (_text(value, "expected"),)
    if not isinstance(given, list) or not given:
        message = '"expected" must be a text or a list of texts, of which one is enough.'
        raise BadExample(ProblemCode.WRONG_EXPECTED, message, place=Place(("expected",), field="expected"))
    return tuple(checked_text(text, Place(("expected", index), field="expected")) for index, text in enumerate(given))


def _choice(value: Mapping[str, Any]) -> Choice:
    given, answer = value["choices"], value.get("answer")
    if not isinstance(given, list) or not 2 <= len(given) <= MAX_CHOICES:
        message = f'"choices" must be a list of 2 to {MAX_CHOICES} texts.'
        raise BadExample(ProblemCode.WRONG_CHOICES, message, detail={"limit": MAX_CHOICES}, place=Place(("choices",), field="choices"))
    choices = tuple(checked_text(text, Place(("choices", index), field="choices")) for index, text in enumerate(given))
    if type(answer) is not int or not 0 <= answer < len(choices):
        place = Place(("answer",) if "answer" in value else (), field="answer")
        message = f'"answer" must be the place of the right choice, from 0 to {len(choices) - 1}.'
        raise BadExample(ProblemCode.WRONG_ANSWER, message, detail={"choices": len(choices) - 1}, place=place)
    return Choice(_text(value, "context"), choices, answer)
