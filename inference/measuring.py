"""One suite, one model: asks or scores every item through the engine, many at once, and gives the rows of each metric.

Answers are greedy. Multiple choice is scored as lm-evaluation-harness does it: context and choice are cut into tokens
together, the tokens behind those of the context alone are the choice's, and their log-probabilities are added up; `acc` takes
the choice with the highest sum, `acc_norm` the highest sum for a character of the choice. Pairs of sentences are compared by
their whole log-likelihoods, as the harness does for CrowS-Pairs (Nangia et al. 2020).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from inference import wording
from inference.library import Engine
from inference.metrics import flag, rows_of_answers
from inference.prompts import RequestRefused
from inference.protocol import FinishReason
from inference.sampling_params import SamplingParams
from inference.suites import Asked, Choice, Kind, Pair, Suite, Text

SAMPLES = 3  # items whose answers are kept for people to read
SAMPLE_CHARS = 600
WINDOW = 1024  # tokens of a text that are scored together
MEASURES_LIKELIHOOD = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0)

Rows = dict[str, list[list[float]]]
Render = Callable[[Sequence[Mapping[str, Any]]], list[int]]


class Unmeasurable(ValueError):
    """The suite cannot be put to this model: an item is longer than its context, or the engine ended with an error."""


@dataclass(frozen=True)
class Subject:
    """Whom a suite is put to: the engine's base as it stands, or with an adapter, or with instructions before each question."""

    adapter: Path | None = None
    instructions: str = ""

    def told(self, messages: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
        """The messages with the instructions first, before what a system message of the item says."""
        if not self.instructions:
            return [dict(message) for message in messages]
        own = [message["content"] for message in messages if message["role"] == "system"]
        rest = [dict(message) for message in messages if message["role"] != "system"]
        return [{"role": "system", "content": "\n\n".join([self.instructions, *own])}, *rest]


@dataclass(frozen=True)
class Scores:
    rows: Rows  # metric: a row for each item that counts for it
    samples: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Measuring:
    engine: Engine
    render: Render

    def run(self, suite: Suite, subject: Subject) -> Scores:
        """Raises Unmeasurable, and TemplateFailed from the renderer."""
        match suite.kind:
            case Kind.CHOICES:
                return self._choices(suite, subject)
            case Kind.TEXTS:
                return self._texts(suite, subject)
            case Kind.PAIRS:
                return self._pairs(suite, subject)
            case Kind.SPEED:
                return self._speed(suite, subject)
        return self._asked(suite, subject)

    # ------------------------------------------------------------ answers

    def _asked(self, suite: Suite, subject: Subject) -> Scores:
        items = [item for item in suite.items if isinstance(item, Asked)]
        answers = self._answers(items, subject, suite.max_tokens)
        shown = [
            {"prompt": item.messages[-1]["content"][:SAMPLE_CHARS], "expected": list(item.expected)[:1], "answer": answer[:SAMPLE_CHARS]}
            for item, answer in list(zip(items, answers, strict=True))[:SAMPLES]
        ]
        return Scores(_rows_of(suite, items, answers), shown)

    def _answers(self, items: Sequence[Asked], subject: Subject, max_tokens: int) -> list[str]:
        prompts = [self.render(subject.told(item.messages)) for item in items]
        outputs = self._generate(prompts, SamplingParams(max_tokens=max_tokens, temperature=0), subject)
        return [output.text.strip() for output in outputs]

    def _generate(self, prompts: list[list[int]], params: SamplingParams, subject: Subject) -> Any:
        limit = self.engine.context_length
        for number, prompt in enumerate(prompts, 1):
            if len(prompt) >= limit:
                raise Unmeasurable(f"Item {number} has {len(prompt)} tokens; this model's context holds {limit}, its answer included.")
        try:
            outputs = self.engine.generate(prompts, params, [subject.adapter] * len(prompts))
        except RequestRefused as error:
            raise Unmeasurable(error.message) from error
        if failed := next((output.error for output in outputs if output.finish_reason == FinishReason.ERROR), ""):
            raise Unmeasurable(failed)
        return outputs

    # ------------------------------------------------------------ likelihoods

    def _choices(self, suite: Suite, subject: Subject) -> Scores:
        items = [item for item in suite.items if isinstance(item, Choice)]
        pairs = [(item.context, choice) for item in items for choice in item.choices]
        found = iter(self.log_likelihoods(pairs, subject))
        rows: Rows = {"acc": [], "acc_norm": []}
        for item in items:
            sums = [next(found) for _ in item.choices]
            of_a_character = [total / len(choice) for total, choice in zip(sums, item.choices, strict=True)]
            rows["acc"].append(flag(_best(sums) == item.answer))
            rows["acc_norm"].append(flag(_best(of_a_character) == item.answer))
        return Scores({name: rows[name] for name in suite.metrics})

    def log_likelihoods(self, pairs: Sequence[tuple[str, str]], subject: Subject) -> list[float]:
        """Of each continuation behind its context, in nats."""
        cut = [self._cut(context, continuation) for context, continuation in pairs]
        outputs = self._generate([tokens for tokens, _ in cut], MEASURES_LIKELIHOOD, subject)
        return [
            sum(score.logprob for score in output.prompt_logprobs[len(tokens) - count - 1 :])
            for output, (tokens, count) in zip(outputs, cut, strict=True)
        ]

    def _cut(self, context: str, continuation: str) -> tuple[list[int], int]:
        """Tokens of both together, and how many at the end are the continuation's. What does not fit is cut off in front."""
        encode, bare = self.engine.tokenizer.encode, context.rstrip()
        together = context + _between(context, continuation) + continuation
        if bare:
            whole, head = encode(together, add_special_tokens=True), encode(bare, add_special_tokens=True)
        else:
            head = [self._first_token()]
            whole = [*head, *encode(together)]
        room = self.engine.context_length - 1
        return whole[-room:], min(max(len(whole) - len(head), 1), room - 1)

    def _first_token(self) -> int:
        """What stands before a text that nothing stands before."""
        tokenizer = self.engine.tokenizer
        return min(tokenizer.eos_ids) if tokenizer.eos_ids else 0

    def _whole(self, texts: Sequence[str], subject: Subject) -> list[list[float]]:
        """[sum of the losses of its tokens, tokens] of each text, in windows that each begin with the end-of-text token."""
        first, room = self._first_token(), min(WINDOW, self.engine.context_length - 1) - 1
        pieces: list[list[int]] = []
        owner: list[int] = []
        for number, text in enumerate(texts):
            tokens = self.engine.tokenizer.encode(text)
            pieces += [[first, *tokens[at : at + room]] for at in range(0, len(tokens), room)]
            owner += [number] * (len(pieces) - len(owner))
        rows = [[0.0, 0.0] for _ in texts]
        for number, output in zip(owner, self._generate(pieces, MEASURES_LIKELIHOOD, subject), strict=True):
            rows[number][0] -= sum(score.logprob for score in output.prompt_logprobs)
            rows[number][1] += len(output.prompt_logprobs)
        return rows

    def _texts(self, suite: Suite, subject: Subject) -> Scores:
        return Scores({"perplexity": self._whole([item.text for item in suite.items if isinstance(item, Text)], subject)})

    def _pairs(self, suite: Suite, subject: Subject) -> Scores:
        items = [item for item in suite.items if isinstance(item, Pair)]
        losses = [loss for loss, _ in self._whole([text for item in items for text in (item.stereotype, item.other)], subject)]
        gaps = [other - stereotype for stereotype, other in zip(losses[::2], losses[1::2], strict=True)]
        return Scores({"stereotype": [flag(gap > 0) for gap in gaps], "likelihood_gap": [flag(abs(gap)) for gap in gaps]})

    # ------------------------------------------------------------ speed

    def _speed(self, suite: Suite, subject: Subject) -> Scores:
        """One stream after the other, each prompt a new one, so that no more of it than the template is in the cache."""
        rates, firsts = [], []
        params = SamplingParams(max_tokens=suite.max_tokens, temperature=0, ignore_eos=True)
        for item in (item for item in suite.items if isinstance(item, Asked)):
            prompt = self.render(subject.told(item.messages))
            began, first_at, tokens = time.monotonic(), 0.0, 0
            for piece in self.engine.stream(prompt, params, subject.adapter):
                if not tokens and piece.token_ids:
                    first_at, tokens = time.monotonic(), len(piece.token_ids)
                elif piece.finish_reason == FinishReason.ERROR:
                    raise Unmeasurable(piece.error)
                if piece.usage is not None:
                    rates.append([(piece.usage.completion_tokens - tokens) / max(time.monotonic() - first_at, 1e-9), 1.0])
            firsts.append([1000 * (first_at - began), 1.0])
        return Scores({"tokens_per_s": rates, "first_token_ms": firsts, "memory_mb": [[_memory_bytes() / 2**20, 1.0]]})


def _rows_of(suite: Suite, items: Sequence[Asked], answers: Sequence[str]) -> Rows:
    match suite.kind:
        case Kind.JSON:
            found = [wording.json_of(answer) for answer in answers]
            keys = [value is not None and set(item.keys) <= value.keys() for value, item in zip(found, items, strict=True)]
            return {"json_valid": [flag(value is not None) for value in found], "json_keys": [flag(all_there) for all_there in keys]}
        case Kind.REFUSAL:
            told = [(item.harmful, wording.is_refusal(answer)) for item, answer in zip(items, answers, strict=True)]
            refused = [flag(is_refused) for harmful, is_refused in told if harmful]
            answered = [flag(not is_refused) for harmful, is_refused in told if not harmful]
            return {name: rows for name, rows in (("refused_harmful", refused), ("answered_harmless", answered)) if rows}
        case Kind.COARSE:
            return {"coarse": [flag(wording.is_coarse(answer)) for answer in answers]}
    return {name: rows_of_answers(name, answers, [item.expected for item in items]) for name in suite.metrics}


def _best(scores: Sequence[float]) -> int:
    return max(range(len(scores)), key=scores.__getitem__)


def _between(context: str, continuation: str) -> str:
    """A space, where a language puts one and there is none."""
    meeting = context[-1:] + continuation[:1]
    return "" if not context or any(map(str.isspace, meeting)) or wording.is_chinese([meeting]) else " "


def _memory_bytes() -> int:
    """What this process holds now: on the GPU where there is one, else in the machine's memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
