"""The rules for answers that an engine has compiled: each tried in a process of its own first, beside the running batch.

    compiling = grammars.compile(grammar)      # a future; the same one for as long as the rule is kept
    compiling.result().constraint()            # of one answer

What was refused is kept as refused, so a rule that needs too much is tried once. Each answer has its own copy of where the
library stands; what the first token may be is found once for all of them.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from llguidance import LLMatcher, LLTokenizer

from inference.grammar import Constraint, GrammarRefused, compiled, next_allowed
from inference.grammar_trial import MEMORY_BYTES, TrialOverdue, require_bounded
from inference.sampling_params import Grammar
from inference.tokenizer import Tokenizer

KEPT = 32  # rules
KEPT_BYTES = MEMORY_BYTES  # of all of them: as much as the trial lets a single one have
AT_ONCE = 2  # tried together: one that needs too much must not hold up all others


@dataclass(frozen=True)
class Compiled:
    """A rule, ready for any number of answers."""

    matcher: LLMatcher
    allowed: bytes  # for the first token
    eos_ids: Collection[int]
    size_bytes: int  # as its trial took

    def constraint(self, *, may_end: bool) -> Constraint:
        return Constraint(self.matcher.deep_copy(), self.allowed, eos_ids=self.eos_ids, may_end=may_end)


class Grammars:
    """Used by the engine's thread."""

    def __init__(self, tokenizer: Tokenizer, *, vocab_size: int) -> None:
        """`vocab_size` is the model's, which may be larger than the tokenizer's."""
        self._tokenizer = tokenizer
        self._vocab_size = max(vocab_size, tokenizer.vocab_size)
        self._eos_ids = sorted(token for token in tokenizer.eos_ids if token < tokenizer.vocab_size)
        self._vocabulary: LLTokenizer | None = None
        self._preparing = threading.Lock()
        self._kept: OrderedDict[Grammar, Future[Compiled]] = OrderedDict()  # the longest unused first
        self._threads: ThreadPoolExecutor | None = None

    def compile(self, grammar: Grammar) -> Future[Compiled]:
        """Its result raises GrammarRefused, or TrialOverdue, after which the next call tries again."""
        found = self._kept.get(grammar)
        if found is None or (found.done() and isinstance(found.exception(), TrialOverdue)):
            self._threads = self._threads or ThreadPoolExecutor(AT_ONCE, thread_name_prefix="grammar")
            found = self._kept[grammar] = self._threads.submit(self._compiled, grammar)
        self._kept.move_to_end(grammar)
        self._forget_the_oldest()
        return found

    def _forget_the_oldest(self) -> None:
        """But for the last, and those that are being compiled."""
        sizes = {old: _size_of(future) for old, future in self._kept.items()}
        count, size_bytes = len(sizes), sum(sizes.values())
        for old in [old for old, future in self._kept.items() if future.done()]:
            if (count <= KEPT and size_bytes <= KEPT_BYTES) or count == 1:
                return
            del self._kept[old]
            count, size_bytes = count - 1, size_bytes - sizes[old]

    def refuse(self, grammar: Grammar, reason: str) -> None:
        """For a rule that held others up when an answer followed it."""
        refused: Future[Compiled] = Future()
        refused.set_exception(GrammarRefused(reason))
        self._kept[grammar] = refused

    def prepare(self) -> None:
        """Reads the vocabulary, which stops all threads of the process for long: 0.4 s with 49,152 tokens, 3 s with 262,144.

        Raises GrammarRefused when it cannot be read.
        """
        with self._preparing:
            if self._vocabulary is None:
                self._vocabulary = self._read_vocabulary()

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _compiled(self, grammar: Grammar) -> Compiled:
        size_bytes = require_bounded(grammar)
        self.prepare()
        assert self._vocabulary is not None
        matcher = compiled(grammar, self._vocabulary, self._tokenizer.written_tokens)
        return Compiled(matcher, next_allowed(matcher), self._eos_ids, size_bytes)

    def _read_vocabulary(self) -> LLTokenizer:
        if not self._eos_ids:
            raise GrammarRefused("this model has no token that ends a text")
        try:
            return LLTokenizer(self._tokenizer.to_json(), n_vocab=self._vocab_size, eos_token=self._eos_ids)
        except BaseException as error:
            if isinstance(error, Exception) or type(error).__name__ == "PanicException":  # not an Exception: it would end the thread
                raise GrammarRefused(f"this model's vocabulary cannot follow rules: {error}") from error
            raise


def _size_of(compiling: Future[Compiled]) -> int:
    """0 of what is not compiled yet or was refused."""
    return compiling.result().size_bytes if compiling.done() and compiling.exception() is None else 0
