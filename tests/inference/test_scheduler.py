"""The scheduler and its blocks under random schedules: nothing lost, nothing shared that must not be, everybody served."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.cache import BLOCK_SIZE, BlockPool, OutOfBlocks, Scope, SequenceBlocks, block_count
from inference.protocol import Priority
from inference.scheduler import Chunk, Scheduler, Sequence, Turns


def a_sequence(pool: BlockPool, tokens: list[int], *, order: int = 0, priority: str = Priority.INTERACTIVE, tenant: str = "t") -> Sequence:
    scope = Scope(adapter=None, version="v", tenant=tenant, own_tokens=BLOCK_SIZE)
    return Sequence(f"s{order}", tokens, SequenceBlocks(pool, scope), order, priority, tenant, cost=len(tokens))


class Store:
    """What the blocks hold: in each slot a mark of the token there and of all before it."""

    def __init__(self, pool: BlockPool) -> None:
        self._pool = pool
        self._slots: dict[int, list[int]] = {}
        self._marks: dict[Sequence, list[int]] = {}

    def marks(self, sequence: Sequence) -> list[int]:
        marks = self._marks.setdefault(sequence, [])
        for token in sequence.tokens[len(marks) :]:
            marks.append(hash((marks[-1] if marks else 0, token)))
        return marks

    def compute(self, chunks: list[Chunk]) -> None:
        """What the model does with a plan. Nobody else may hold a block that is written to."""
        for chunk in chunks:
            marks = self.marks(chunk.sequence)
            for at in range(chunk.start, chunk.start + chunk.count):
                block = chunk.sequence.blocks.blocks[at // BLOCK_SIZE]
                assert self._pool._references[block] == 1
                self._slots.setdefault(block, [0] * BLOCK_SIZE)[at % BLOCK_SIZE] = marks[at]

    def guess(self, sequence: Sequence, draft: list[int]) -> None:
        """Computes tokens behind a sequence's own."""
        mark = self.marks(sequence)[-1]
        for at, token in enumerate(draft, len(sequence.tokens)):
            mark = hash((mark, token))
            block = sequence.blocks.blocks[at // BLOCK_SIZE]
            assert self._pool._references[block] == 1
            self._slots.setdefault(block, [0] * BLOCK_SIZE)[at % BLOCK_SIZE] = mark

    def copy(self, copies: list[tuple[int, int]]) -> None:
        for source, target in copies:
            self._slots[target] = list(self._slots[source])

    def holds(self, sequence: Sequence) -> bool:
        """Whether all that counts as computed stands in the sequence's blocks."""
        found = [mark for block in sequence.blocks.blocks for mark in self._slots.get(block, [0] * BLOCK_SIZE)]
        return found[: sequence.computed] == self.marks(sequence)[: sequence.computed]


def check_blocks(pool: BlockPool, sequences: list[Sequence], store: Store) -> None:
    """Every block in exactly one state, referenced exactly as often as it is held, and holding what its holders think."""
    held = Counter(block for sequence in sequences for block in sequence.blocks.blocks)
    assert pool.used + pool.idle + pool.free == pool.total
    assert pool.used == len(held)
    for block in range(1, pool.total + 1):
        assert pool._references[block] == held[block]
    for sequence in sequences:
        assert len(sequence.blocks.blocks) >= block_count(sequence.computed)
        assert store.holds(sequence)


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 10**9),
    total=st.integers(8, 24),
    budget=st.sampled_from([1, 7, 16, 40]),
    max_running=st.integers(1, 6),
    beside=st.sampled_from([None, 1, 3]),
)
def test_any_schedule_serves_everybody_and_keeps_the_books(
    seed: int, total: int, budget: int, max_running: int, beside: int | None
) -> None:
    choose = random.Random(seed)
    pool = BlockPool(total)
    scheduler = Scheduler(pool, max_batch_tokens=budget, max_running=max_running, beside_interactive=beside)
    longest = total * BLOCK_SIZE
    store = Store(pool)
    left: dict[Sequence, int] = {}  # tokens to come
    branches: dict[Sequence, list[Sequence]] = {}  # that have not begun, of the sequence they begin from
    begun = 0
    for _ in range(4000):
        if begun < 12 and choose.random() < 0.3:
            prompt = [choose.choice([1, 2]) for _ in range(choose.randint(1, longest - 20))]
            prompt[:40] = [1] * min(len(prompt), 40)  # so that prefixes are shared
            priority = choose.choice([Priority.INTERACTIVE, Priority.BATCH])
            sequence = a_sequence(pool, prompt, order=begun, priority=priority, tenant=choose.choice("ab"))
            left[sequence] = choose.randint(1, 19)
            branches[sequence] = [sequence.branched(number) for number in range(1, choose.choice([1, 1, 2, 5]))]
            scheduler.add(sequence)
            begun += 1
        if left and choose.random() < 0.05:
            gone = choose.choice(list(left))
            scheduler.remove(gone)
            del left[gone]
            assert gone.blocks.blocks == []
        chunks = scheduler.plan()
        assert sum(chunk.count for chunk in chunks) <= budget
        batch = [chunk.count for chunk in chunks if chunk.sequence.priority == Priority.BATCH]
        assert beside is None or len(batch) == len(chunks) or sum(batch) <= beside
        assert len(scheduler.running) <= max_running
        assert bool(chunks) == bool(left)
        store.compute(chunks)
        scheduler.advance(chunks)
        check_blocks(pool, list(left), store)
        for chunk in chunks:
            if chunk.reaches_end:
                new = branches.pop(chunk.sequence, [])
                store.copy(scheduler.fork(chunk.sequence, new))
                for branch in new:
                    left[branch] = left[chunk.sequence]
                check_blocks(pool, list(left), store)
                for branch in new:
                    branch.tokens.append(choose.choice([1, 2]))
                if len(chunks) == len(scheduler.running) == 1 and not scheduler.waiting:
                    guess_ahead(chunk.sequence, scheduler, store, choose, left)
                chunk.sequence.tokens.append(choose.choice([1, 2]))
                left[chunk.sequence] -= 1
                if not left[chunk.sequence]:
                    del left[chunk.sequence]
                    scheduler.remove(chunk.sequence)
        if begun == 12 and not left:
            break
    assert begun == 12
    assert not left
    assert (pool.used, scheduler.running, scheduler.waiting) == (0, [], [])


def guess_ahead(sequence: Sequence, scheduler: Scheduler, store: Store, choose: random.Random, left: dict[Sequence, int]) -> None:
    """Some tokens behind the sequence's own, of which some turn out to be right. As the engine does, but after the step."""
    draft = [choose.choice([1, 2]) for _ in range(scheduler.stretch(sequence, choose.randint(0, 40)))]
    store.guess(sequence, draft)
    for token in draft[: choose.randint(0, min(len(draft), left[sequence] - 1))]:
        sequence.tokens.append(token)
        left[sequence] -= 1
        scheduler.keep(sequence)
    scheduler.shrink(sequence)
    check_blocks(scheduler._pool, list(left), store)
    assert len(sequence.blocks.blocks) == block_count(sequence.computed)


def run(scheduler: Scheduler) -> list[tuple[str, int]]:
    chunks = scheduler.plan()
    scheduler.advance(chunks)
    for chunk in chunks:
        if chunk.reaches_end:
            chunk.sequence.tokens.append(1)
    return [(chunk.sequence.id, chunk.count) for chunk in chunks]


def test_a_long_prompt_comes_in_chunks_and_stalls_nobody() -> None:
    pool = BlockPool(64)
    scheduler = Scheduler(pool, max_batch_tokens=32, max_running=8)
    scheduler.add(a_sequence(pool, [1] * 5, order=1))
    run(scheduler)
    scheduler.add(a_sequence(pool, list(range(100)), order=0))

    steps = [run(scheduler) for _ in range(5)]

    assert steps == [[("s1", 1), ("s0", 31)]] * 3 + [[("s1", 1), ("s0", 7)], [("s1", 1), ("s0", 1)]]


def test_interactive_goes_before_batch_even_when_everything_is_taken() -> None:
    pool = BlockPool(64)
    scheduler = Scheduler(pool, max_batch_tokens=64, max_running=2)
    for order in (0, 1):
        scheduler.add(a_sequence(pool, [order] * 20, order=order, priority=Priority.BATCH))
    run(scheduler)
    scheduler.add(a_sequence(pool, [7] * 20, order=2))

    assert run(scheduler) == [("s2", 20), ("s0", 1)]
    assert [sequence.id for sequence in scheduler.waiting] == ["s1"]


def test_a_tenant_that_asks_much_does_not_make_another_wait_for_all_of_it() -> None:
    scheduler = Scheduler(pool := BlockPool(64), max_batch_tokens=32, max_running=1)
    many = [a_sequence(pool, [1] * 10, order=number, tenant="many") for number in range(6)]
    few = [a_sequence(pool, [1] * 10, order=10 + number, tenant="few") for number in range(2)]
    for sequence in many + few:
        scheduler.add(sequence)

    assert in_order(scheduler) == ["s0", "s10", "s1", "s11", "s2", "s3", "s4", "s5"]


def test_turns_are_counted_in_tokens() -> None:
    scheduler = Scheduler(pool := BlockPool(64), max_batch_tokens=64, max_running=1)
    for number in range(2):
        scheduler.add(a_sequence(pool, [1] * 30, order=number, tenant="long"))
    for number in range(10, 14):
        scheduler.add(a_sequence(pool, [1] * 10, order=number, tenant="short"))

    assert in_order(scheduler) == ["s0", "s10", "s11", "s12", "s1", "s13"]


def test_who_was_silent_gains_nothing_for_later() -> None:
    scheduler = Scheduler(pool := BlockPool(64), max_batch_tokens=64, max_running=1)
    for number in range(5):
        scheduler.add(a_sequence(pool, [1] * 10, order=number, tenant="early"))
    in_order(scheduler)
    for number in range(10, 12):
        scheduler.add(a_sequence(pool, [1] * 10, order=number, tenant="late"))
        scheduler.add(a_sequence(pool, [1] * 10, order=number + 10, tenant="early"))

    assert in_order(scheduler) == ["s10", "s11", "s20", "s21"]


def in_order(scheduler: Scheduler) -> list[str]:
    """Who is served, one after the other, when each wants one token."""
    served = []
    while scheduler.waiting or scheduler.running:
        run(scheduler)
        (sequence,) = scheduler.running
        served.append(sequence.id)
        scheduler.remove(sequence)
    return served


def test_turns_do_not_remember_everybody_who_ever_asked_but_those_who_used_most() -> None:
    turns, pool = Turns(), BlockPool(8)
    often = [a_sequence(pool, [1] * 10, order=number, tenant="often") for number in range(3)]
    for sequence in often[:2]:
        turns.give(sequence)

    for number in range(5000):
        sequence = a_sequence(pool, [1] * 10, order=number, tenant=f"t{number}")
        turns.give(sequence)
        turns.serve(sequence)
    turns.give(often[2])

    assert len(turns._ends) <= Turns.REMEMBERED
    assert [sequence.turn for sequence in often] == [0, 10, 20]


def test_a_preempted_sequence_resumes_from_what_is_still_cached() -> None:
    pool = BlockPool(4)
    scheduler = Scheduler(pool, max_batch_tokens=64, max_running=4)
    first, second = a_sequence(pool, [1] * 30, order=0), a_sequence(pool, [2] * 30, order=1, tenant="u")
    scheduler.add(first)
    run(scheduler)
    scheduler.add(second)
    while not scheduler.preemptions:
        run(scheduler)
    assert (second.blocks.blocks, second.computed) == ([], 0)

    scheduler.remove(first)

    assert run(scheduler) == [("s1", len(second.tokens) - BLOCK_SIZE)] or second.computed > 0
    assert second.reused == 0  # what a request finds of its own work is nothing it was spared


@pytest.mark.parametrize(("length", "copied"), [(40, 1), (48, 0)])
def test_branches_share_full_blocks_and_copy_the_last(length: int, copied: int) -> None:
    pool = BlockPool(64)
    scheduler = Scheduler(pool, max_batch_tokens=64, max_running=3)
    first = a_sequence(pool, [1] * length, order=0)
    branches = [first.branched(number) for number in (1, 2, 3)]
    scheduler.add(first)
    scheduler.advance(scheduler.plan())

    copies = scheduler.fork(first, branches)

    full = first.blocks.blocks[: length // BLOCK_SIZE]
    assert [source for source, _ in copies] == first.blocks.blocks[len(full) :] * 2
    assert [branch.blocks.blocks for branch in branches] == ([[*full, target] for _, target in copies] or [full, full]) + [[]]
    assert [branch.computed for branch in branches] == [length, length, 0]
    assert scheduler.running == [first, *branches[:2]]
    assert scheduler.waiting == [branches[2]]
    assert pool.used == 3 + 2 * copied


def cached(pool: BlockPool, scope: Scope, tokens: list[int]) -> int:
    """How many of the tokens somebody with `scope` need not compute."""
    blocks = SequenceBlocks(pool, scope)
    found = blocks.take_cached(tokens)
    blocks.release()
    return found


def leave_behind(pool: BlockPool, scope: Scope, tokens: list[int]) -> None:
    blocks = SequenceBlocks(pool, scope)
    blocks.grow(len(tokens))
    blocks.remember(tokens, len(tokens))
    blocks.release()


def test_a_versions_own_part_is_shared_and_a_tenants_is_not() -> None:
    pool = BlockPool(32)
    tokens = list(range(100))
    own = 3 * BLOCK_SIZE + 5
    leave_behind(pool, Scope(None, "v1", "alice", own), tokens)

    assert cached(pool, Scope(None, "v1", "alice", own), tokens) == 96
    assert cached(pool, Scope(None, "v1", "alice", own), tokens[:96]) == 80  # the last token is always computed
    assert cached(pool, Scope(None, "v1", "bob", own), tokens) == 48
    assert cached(pool, Scope(None, "v2", "alice", own), tokens) == 0
    assert cached(pool, Scope("adapter", "v1", "alice", own), tokens) == 0
    assert cached(pool, Scope(None, "v1", "alice", own), [9, *tokens[1:]]) == 0
    assert pool.used == 0


def test_in_larger_blocks_tenants_still_share_only_whole_blocks_of_a_versions_own_part() -> None:
    pool = BlockPool(32, block_size=256)
    tokens = list(range(1000))
    leave_behind(pool, Scope(None, "v1", "alice", 300), tokens)

    assert cached(pool, Scope(None, "v1", "alice", 300), tokens) == 768
    assert cached(pool, Scope(None, "v1", "bob", 300), tokens) == 256
    assert cached(pool, Scope(None, "v1", "bob", 255), tokens) == 0


def test_the_longest_unused_goes_first_and_from_its_end() -> None:
    pool = BlockPool(6)
    scope = Scope(None, "v", "t")
    old, new = [1] * 40, [2] * 40
    leave_behind(pool, scope, old)
    leave_behind(pool, scope, new)
    assert (pool.idle, pool.free) == (4, 2)

    taken = [pool.allocate() for _ in range(3)]

    assert (cached(pool, scope, old), cached(pool, scope, new)) == (16, 32)
    pool.release(taken)
    assert (pool.used, pool.idle, pool.free) == (0, 3, 3)


def test_blocks_that_are_held_are_never_taken() -> None:
    pool = BlockPool(2)
    held = SequenceBlocks(pool, Scope(None, "v", "t"))
    held.grow(2 * BLOCK_SIZE)

    with pytest.raises(OutOfBlocks):
        pool.allocate()
    assert pool.used == 2


def test_a_batch_takes_all_of_a_step_alone_and_little_of_one_that_people_wait_for() -> None:
    pool = BlockPool(64)
    scheduler = Scheduler(pool, max_batch_tokens=64, max_running=8, beside_interactive=2)
    for order in range(4):
        scheduler.add(a_sequence(pool, [order] * 16, order=order, priority=Priority.BATCH))
    alone = scheduler.plan()
    scheduler.advance(alone)
    for chunk in alone:
        chunk.sequence.tokens.append(9)

    scheduler.add(person := a_sequence(pool, [7] * 20, order=9))
    beside = scheduler.plan()
    scheduler.advance(beside)
    for chunk in beside:
        chunk.sequence.tokens.append(9)
    scheduler.remove(person)
    again = scheduler.plan()

    assert [chunk.count for chunk in alone] == [16, 16, 16, 16]
    assert [(chunk.sequence.id, chunk.count) for chunk in beside] == [("s9", 20), ("s0", 1), ("s1", 1)]
    assert [(chunk.sequence.id, chunk.count) for chunk in again] == [("s0", 1), ("s1", 1), ("s2", 1), ("s3", 1)]
