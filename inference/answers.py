"""What an engine keeps of a request under way: its answer, in as many branches as choices were asked for.

The branches share the prompt. The first computes it; where its first token can be chosen the others begin from the same
logits, on the same full blocks. Each draws with a seed of its own.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Sequence as Listed
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

from inference.adapters import Hold
from inference.detokenizer import Detokenizer
from inference.grammars import Compiled
from inference.lora import Adapter
from inference.protocol import FailureCode, Finished, FinishReason, GenerationRequest, Usage
from inference.reading import Reader, TokenLogprob
from inference.sampling import Choice
from inference.sampling_params import SamplingParams
from inference.scheduler import Sequence
from inference.speculation import Drafts
from inference.tokenizer import Tokenizer


@dataclass(eq=False)
class Branch:
    """One of the choices."""

    sequence: Sequence
    choice: Choice
    text: Detokenizer
    drafts: Drafts
    logprobs: list[TokenLogprob] = field(default_factory=list)  # of the answer's tokens, where params ask for them
    spelled: int = 0  # tokens that became text: all but one that ends answers
    told: int = 0  # of the log-probabilities, those that an event told
    began: bool = False  # it stands with the scheduler, or did
    reason: FinishReason | None = None  # why it ended

    @property
    def number(self) -> int:
        return self.sequence.branch

    @property
    def tokens(self) -> list[int]:
        """What was answered so far."""
        return self.sequence.tokens[self.sequence.prompt_length :]

    def untold(self) -> list[TokenLogprob]:
        """Log-probabilities of tokens that became text since this was asked last."""
        since, self.told = self.told, self.spelled
        return self.logprobs[since : self.spelled]


@dataclass(eq=False)
class Answer:
    """A request under way."""

    request: GenerationRequest
    params: SamplingParams
    branches: Listed[Branch]
    max_tokens: int  # of each branch
    hold: Hold | None  # on its adapter
    received_at: float  # time.monotonic()
    reader: Reader | None = None
    rule: Future[Compiled] | None = None  # that it follows
    first_token_at: float | None = None

    @property
    def adapter(self) -> Adapter | None:
        return self.hold.adapter if self.hold is not None else None

    @property
    def settled(self) -> bool:
        """Whether what it needs beside the model is here, or will not come."""
        return (self.hold is None or self.hold.settled) and (self.rule is None or self.rule.done())

    @property
    def first(self) -> Branch:
        return self.branches[0]

    @property
    def under_way(self) -> list[Branch]:
        return [branch for branch in self.branches if branch.reason is None]

    @property
    def usage(self) -> Usage:
        """The prompt counts once, however many branches go on from it."""
        completion_tokens = sum(branch.choice.count for branch in self.branches)
        return Usage(self.first.sequence.prompt_length, completion_tokens, self.first.sequence.reused or 0)


class Ended(Protocol):
    """What is told of an answer at its end, whichever engine made it."""

    request: GenerationRequest
    received_at: float
    first_token_at: float | None

    @property
    def usage(self) -> Usage: ...


def ended(
    answer: Ended, reason: FinishReason, *, failure: FailureCode | None = None, message: str = "", detail: dict[str, Any] | None = None
) -> Finished:
    """The last event of an answer."""
    first_token_s = None if answer.first_token_at is None else answer.first_token_at - answer.received_at
    return Finished(
        request=answer.request.id,
        reason=reason,
        usage=answer.usage.to_json(),
        attempt=answer.request.attempt,
        failure=failure,
        message=message,
        detail=detail or {},
        first_token_ms=None if first_token_s is None else round(first_token_s * 1000, 2),
        duration_ms=round((time.monotonic() - answer.received_at) * 1000, 2),
    )


def branches_of(first: Sequence, params: SamplingParams, tokenizer: Tokenizer, *, lookahead: int) -> list[Branch]:
    """As many as `params` ask for, none begun. `first` is the first one's sequence; `lookahead` tokens are guessed at once."""
    seed = secrets.randbits(63) if params.seed is None else params.seed
    sequences = [first, *(first.branched(number) for number in range(1, params.n))]
    return [
        Branch(sequence, Choice(params, seed_of_choice(seed, sequence.branch)), Detokenizer(tokenizer, params.stop), Drafts(lookahead))
        for sequence in sequences
    ]


def seed_of_choice(seed: int, choice: int) -> int:
    """The first choice's is the seed itself; the others' lie far away from those that people write."""
    if choice == 0:
        return seed
    raw = hashlib.blake2b(f"{seed}/{choice}".encode(), digest_size=8).digest()
    return int.from_bytes(raw, "little", signed=True)
