"""Which tokens are computed next.

There are no prefill and decode phases: a sequence has tokens whose keys and values are stored and tokens that still have
to be computed, and every step gives each as many of those as one token budget allows (`Scheduler.plan`). Sequences that lack
a single token (they are answering) go before those that lack many (long prompts, computed in chunks), so that a long prompt
stalls nobody; interactive ones go before batch ones in everything, and where each token takes its time few of batch ones are
computed beside them; running ones go before waiting ones, and who has asked for much goes behind who has asked for little.
When blocks run out the last in that order gives its blocks back and waits; it later resumes from what the prefix cache
still holds.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable
from dataclasses import dataclass, field

from inference.cache import BlockPool, SequenceBlocks
from inference.protocol import Priority


@dataclass(eq=False)
class Sequence:
    """The tokens of one request: its prompt, then its answer as far as it is known."""

    id: str
    tokens: list[int]
    blocks: SequenceBlocks
    order: int  # of arrival
    priority: str = Priority.INTERACTIVE
    tenant: str = ""
    cost: int = 1  # tokens it may take, by which its tenant's next ones go further back
    branch: int = 0  # which of the request's choices
    turn: int = 0  # given by the scheduler
    computed: int = 0  # tokens whose keys and values are stored
    reused: int | None = None  # of the prompt's tokens, those found in the cache when it first ran
    prompt_length: int = field(init=False)

    def __post_init__(self) -> None:
        self.prompt_length = len(self.tokens)

    def branched(self, branch: int) -> Sequence:
        """Another choice for the same prompt, with nothing computed."""
        blocks = self.blocks.none_yet()
        return Sequence(self.id, list(self.tokens), blocks, self.order, self.priority, self.tenant, branch=branch)

    @property
    def lacking(self) -> int:
        return len(self.tokens) - self.computed

    @property
    def rank(self) -> tuple[bool, int, int]:
        return (self.priority == Priority.BATCH, self.turn, self.order)


@dataclass(frozen=True)
class Chunk:
    """The part of a sequence that a step computes."""

    sequence: Sequence
    start: int
    count: int

    @property
    def reaches_end(self) -> bool:
        """Whether the sequence's next token can be chosen after it."""
        return self.start + self.count == len(self.sequence.tokens)


class Turns:
    """Fair turns between tenants, counted in tokens: start-time fair queueing (Goyal, Vin and Cheng, 1996).

    A sequence's turn is where its tenant's last one ends, or the turn that is served now if that is later: whoever asks
    seldom goes at once, and a tenant with a hundred requests waiting has one served for each of another's.
    """

    REMEMBERED = 1024  # tenants at most: of those whose turns are not over, the ones who used most

    def __init__(self) -> None:
        self._now: dict[str, int] = {}  # by priority
        self._ends: dict[tuple[str, str], int] = {}  # by priority and tenant

    def give(self, sequence: Sequence) -> None:
        now, whose = self._now.get(sequence.priority, 0), (sequence.priority, sequence.tenant)
        sequence.turn = max(now, self._ends.get(whose, 0))
        if len(self._ends) >= self.REMEMBERED:
            self._forget()
        self._ends[whose] = sequence.turn + sequence.cost

    def serve(self, sequence: Sequence) -> None:
        self._now[sequence.priority] = max(self._now.get(sequence.priority, 0), sequence.turn)

    def _forget(self) -> None:
        """Keeps at most half. The turn served now does not move while everybody who comes is new, so that no turn would be over."""
        ahead = {key: end - self._now.get(key[0], 0) for key, end in self._ends.items()}
        most = sorted((key for key in ahead if ahead[key] > 0), key=ahead.__getitem__, reverse=True)
        self._ends = {key: self._ends[key] for key in most[: self.REMEMBERED // 2]}


class Scheduler:
    def __init__(self, pool: BlockPool, *, max_batch_tokens: int, max_running: int, beside_interactive: int | None = None) -> None:
        """beside_interactive: tokens of batch sequences in a step that serves interactive ones too; None: all that are left."""
        self._pool = pool
        self._beside_interactive = max_batch_tokens if beside_interactive is None else beside_interactive
        self._max_batch_tokens = max_batch_tokens
        self._max_running = max_running
        self.running: list[Sequence] = []  # both sorted by rank
        self.waiting: list[Sequence] = []
        self.preemptions = 0
        self._turns = Turns()
        self._chunks: dict[Sequence, Chunk] = {}
        self._budget = 0

    def add(self, sequence: Sequence) -> None:
        self._turns.give(sequence)
        insort(self.waiting, sequence, key=_rank)

    def remove(self, sequence: Sequence) -> None:
        """Ends a sequence, wherever it stands, and gives its blocks back."""
        (self.running if sequence in self.running else self.waiting).remove(sequence)
        sequence.blocks.release()

    def fork(self, sequence: Sequence, branches: Iterable[Sequence]) -> list[tuple[int, int]]:
        """Lets branches of a running sequence begin where it stands, before its next token; returns blocks to copy: from, to.

        A branch without room waits as one that was preempted does. All stand in their sequence's turn.
        """
        copies: list[tuple[int, int]] = []
        for branch in branches:
            branch.turn = sequence.turn
            if self._has_room_for(1):
                copies += branch.blocks.fork(sequence.blocks, sequence.computed)
                branch.computed = branch.reused = sequence.computed
                insort(self.running, branch, key=_rank)
            else:
                insort(self.waiting, branch, key=_rank)
        return copies

    def plan(self) -> list[Chunk]:
        """The next step's chunks, with blocks for all of them. Empty only when there is nothing to do."""
        self._chunks, self._budget = {}, self._max_batch_tokens
        for batch in (False, True):
            if batch and self._chunks:
                self._budget = min(self._budget, self._beside_interactive)
            self._plan_running([sequence for sequence in self.running if sequence.rank[0] is batch])
            self._admit(batch)
        return list(self._chunks.values())

    def advance(self, chunks: Iterable[Chunk]) -> None:
        """Notes that the chunks were computed."""
        for chunk in chunks:
            chunk.sequence.computed += chunk.count
            chunk.sequence.blocks.remember(chunk.sequence.tokens, chunk.sequence.computed)

    def stretch(self, sequence: Sequence, count: int) -> int:
        """Takes blocks for up to `count` tokens behind those of a running sequence, none of another's; returns for how many."""
        room = (len(sequence.blocks.blocks) + self._pool.available) * self._pool.block_size - len(sequence.tokens)
        count = min(count, room, self._max_batch_tokens - 1)
        sequence.blocks.grow(len(sequence.tokens) + count)
        return count

    def keep(self, sequence: Sequence) -> None:
        """Notes that a token computed behind the sequence's own turned out to be its next one."""
        sequence.computed += 1
        sequence.blocks.remember(sequence.tokens, sequence.computed)

    def shrink(self, sequence: Sequence) -> None:
        """Gives back the blocks of tokens that were computed in vain."""
        sequence.blocks.shrink(sequence.computed)

    def _plan_running(self, sequences: list[Sequence]) -> None:
        for sequence in sorted(sequences, key=lambda sequence: sequence.lacking > 1):
            if self._budget and sequence in self.running:
                count = min(sequence.lacking, self._budget)
                if self._reserve(sequence, sequence.computed + count):
                    self._give(sequence, count)

    def _admit(self, batch: bool) -> None:
        while self._budget and self.waiting and self.waiting[0].rank[0] is batch:
            sequence = self.waiting[0]
            while not self._start(sequence):
                if batch or not self._preempt_batch():
                    return
            self._give(sequence, min(sequence.lacking, self._budget))

    def _start(self, sequence: Sequence) -> bool:
        """Moves a waiting sequence to the running ones, with blocks for all its tokens; False when there is no room."""
        if len(self.running) >= self._max_running:
            return False
        reused = sequence.blocks.take_cached(sequence.tokens)
        if not self._has_room_for(sequence.blocks.missing(len(sequence.tokens))):
            sequence.blocks.release()
            return False
        sequence.blocks.grow(len(sequence.tokens))
        sequence.computed = reused
        sequence.reused = reused if sequence.reused is None else sequence.reused
        self.waiting.remove(sequence)
        insort(self.running, sequence, key=_rank)
        self._turns.serve(sequence)
        return True

    def _has_room_for(self, blocks: int) -> bool:
        """Whether another sequence that takes so many blocks may run.

        Each running sequence may want a block soon: one admitted without regard to that would be preempted at once.
        """
        return len(self.running) < self._max_running and blocks + len(self.running) <= self._pool.available

    def _reserve(self, sequence: Sequence, length: int) -> bool:
        """Blocks for `length` tokens, if need be those of others; False when the sequence itself had to give way."""
        while sequence.blocks.missing(length) > self._pool.available:
            last = self.running[-1]
            self._preempt(last)
            if last is sequence:
                return False
        sequence.blocks.grow(length)
        return True

    def _preempt_batch(self) -> bool:
        """Makes room for an interactive sequence at the cost of the last batch one, if there is one."""
        if not self.running or self.running[-1].priority != Priority.BATCH:
            return False
        self._preempt(self.running[-1])
        return True

    def _preempt(self, sequence: Sequence) -> None:
        if (chunk := self._chunks.pop(sequence, None)) is not None:
            self._budget += chunk.count
        self.running.remove(sequence)
        sequence.blocks.release()
        sequence.computed = 0
        self.preemptions += 1
        insort(self.waiting, sequence, key=_rank)

    def _give(self, sequence: Sequence, count: int) -> None:
        self._chunks[sequence] = Chunk(sequence, sequence.computed, count)
        self._budget -= count


def _rank(sequence: Sequence) -> tuple[bool, int, int]:
    return sequence.rank
