"""Which blocks of the key-value store belong to whom: one pool, with reference counts and a cache of prefixes.

A block holds the keys and values of consecutive tokens of one sequence, as many as the pool says. Full blocks can be
found again by what they hold: each has a key chained from all tokens before it, rooted in the adapter and the version
asked for (the base is the engine's own), so a block is only ever reused behind exactly the tokens it was computed
behind. From the first block that holds more than the version's own messages the key contains the tenant too, and with
it all that follow: a version's instructions are computed once for all who use it, and nobody can learn from what is
cached what another tenant wrote.

Every block is in one of three states: referenced by sequences, cached without a reference (evicted when room is needed,
the longest unused first), or free. A block that becomes free is listed in `freed` to be zeroed before it is used again.
"""

from __future__ import annotations

import hashlib
import struct
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

BLOCK_SIZE = 16  # tokens, where a runner has no need of more


class OutOfBlocks(RuntimeError):
    """No block is free and none can be evicted."""


@dataclass(frozen=True)
class Scope:
    """Whose prefixes a sequence may reuse and leave behind."""

    adapter: str | None
    version: str
    tenant: str
    own_tokens: int = 0  # leading tokens that belong to the version itself, shared by all tenants
    cached: bool = True  # False: reuses nothing, though what it leaves behind can be found

    def root(self) -> bytes:
        return _digest(b"root", _framed(self.adapter or "", self.version))


@dataclass(frozen=True)
class _Cached:
    block: int
    before: bytes  # key of the block before
    tokens: tuple[int, ...]


class BlockPool:
    """Blocks 1 to `total`; block 0 is the padding of `inference.attention` and belongs to nobody."""

    def __init__(self, total: int, block_size: int = BLOCK_SIZE) -> None:
        self.total = total
        self.block_size = block_size
        self.freed: list[int] = []  # to be zeroed by the owner of the store, who empties this
        self._free = list(range(total, 0, -1))
        self._references = [0] * (total + 1)
        self._cached: dict[bytes, _Cached] = {}
        self._key_of: dict[int, bytes] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()  # cached without a reference, the longest unused first

    @property
    def free(self) -> int:
        """Blocks that hold nothing."""
        return len(self._free)

    @property
    def idle(self) -> int:
        """Blocks kept only because their content may be wanted again."""
        return len(self._idle)

    @property
    def used(self) -> int:
        """Blocks some sequence holds."""
        return self.total - self.free - self.idle

    @property
    def available(self) -> int:
        """Blocks that can be had now."""
        return self.free + self.idle

    def allocate(self) -> int:
        """A block with one reference. Raises OutOfBlocks."""
        if not self._free:
            self._evict()
        block = self._free.pop()
        self._references[block] = 1
        return block

    def share(self, blocks: Sequence[int]) -> list[int]:
        """The same blocks with a reference more."""
        for block in blocks:
            self._references[block] += 1
        return list(blocks)

    def release(self, blocks: Sequence[int]) -> None:
        """Gives back one reference to each block; the last ones of a sequence are evicted first."""
        for block in reversed(blocks):
            self._references[block] -= 1
            if self._references[block]:
                continue
            if block in self._key_of:
                self._idle[block] = None
            else:
                self._let_go(block)

    def match(self, tokens: Sequence[int], scope: Scope) -> list[int]:
        """The blocks that hold the longest cached beginning of `tokens`, referenced for the caller.

        At least the last token is left to be computed, since the next one is chosen from its hidden state.
        """
        blocks: list[int] = []
        key = scope.root()
        for index in range((len(tokens) - 1) // self.block_size):
            before, held = key, self.block_tokens(tokens, index)
            key = chain(before, held, index, scope)
            found = self._cached.get(key)
            if found is None or found.tokens != held or found.before != before:
                break
            blocks.append(found.block)
            self._references[found.block] += 1
            self._idle.pop(found.block, None)
        return blocks

    def block_tokens(self, tokens: Sequence[int], index: int) -> tuple[int, ...]:
        return tuple(tokens[index * self.block_size : (index + 1) * self.block_size])

    def remember(self, block: int, *, key: bytes, before: bytes, tokens: tuple[int, ...]) -> None:
        """Lets a full, computed block be found again. The first with the same content stays the one that is found."""
        if key not in self._cached and block not in self._key_of:
            self._cached[key] = _Cached(block, before, tokens)
            self._key_of[block] = key

    def forget(self, blocks: Sequence[int]) -> None:
        """Makes referenced blocks unfindable, since what they hold turned out to be wrong."""
        for block in blocks:
            if (key := self._key_of.pop(block, None)) is not None:
                del self._cached[key]

    def _evict(self) -> None:
        if not self._idle:
            raise OutOfBlocks
        block, _ = self._idle.popitem(last=False)
        del self._cached[self._key_of.pop(block)]
        self._let_go(block)

    def _let_go(self, block: int) -> None:
        self._free.append(block)
        self.freed.append(block)


class SequenceBlocks:
    """The blocks of one sequence, and how far they are known to the cache."""

    def __init__(self, pool: BlockPool, scope: Scope) -> None:
        self._pool = pool
        self._scope = scope
        self.blocks: list[int] = []
        self._remembered = 0  # blocks offered to the cache
        self._key = scope.root()

    def take_cached(self, tokens: Sequence[int]) -> int:
        """Takes over the cached beginning of `tokens`; returns how many tokens that spares."""
        self.blocks = self._pool.match(tokens, self._scope) if self._scope.cached else []
        for index in range(len(self.blocks)):
            self._key = chain(self._key, self._pool.block_tokens(tokens, index), index, self._scope)
        self._remembered = len(self.blocks)
        return len(self.blocks) * self._pool.block_size

    def none_yet(self) -> SequenceBlocks:
        """Of another sequence in the same scope, without a block."""
        return SequenceBlocks(self._pool, self._scope)

    def fork(self, other: SequenceBlocks, computed: int) -> list[tuple[int, int]]:
        """Takes over `computed` tokens of another sequence in the same scope: full blocks are shared, as nobody writes to them.

        The last, partly filled one is not, since both will write: returns what must be copied, from and to. Raises OutOfBlocks.
        """
        full = computed // self._pool.block_size
        copies = [(block, self._pool.allocate()) for block in other.blocks[full : self._count(computed)]]
        self.blocks = self._pool.share(other.blocks[:full]) + [to for _, to in copies]
        self._remembered, self._key = other._remembered, other._key
        return copies

    def missing(self, length: int) -> int:
        """How many more blocks `length` tokens need."""
        return max(self._count(length) - len(self.blocks), 0)

    def grow(self, length: int) -> None:
        """Takes what is missing for `length` tokens. Raises OutOfBlocks; what was taken till then is kept."""
        for _ in range(self.missing(length)):
            self.blocks.append(self._pool.allocate())

    def shrink(self, length: int) -> None:
        """Gives back what `length` tokens do not need. Nothing of it was offered to the cache."""
        self._pool.release(self.blocks[self._count(length) :])
        del self.blocks[self._count(length) :]

    def remember(self, tokens: Sequence[int], computed: int) -> None:
        """Offers the blocks that the first `computed` tokens fill to the cache."""
        for index in range(self._remembered, computed // self._pool.block_size):
            before, held = self._key, self._pool.block_tokens(tokens, index)
            self._key = chain(before, held, index, self._scope)
            self._pool.remember(self.blocks[index], key=self._key, before=before, tokens=held)
            self._remembered = index + 1

    def forget(self) -> None:
        """Nobody will find what these blocks hold again."""
        self._pool.forget(self.blocks)

    def release(self) -> None:
        self._pool.release(self.blocks)
        self.blocks = []
        self._remembered = 0
        self._key = self._scope.root()

    def _count(self, length: int) -> int:
        return block_count(length, self._pool.block_size)


def block_count(length: int, block_size: int = BLOCK_SIZE) -> int:
    return -(-length // block_size)


def chain(before: bytes, tokens: tuple[int, ...], index: int, scope: Scope) -> bytes:
    """The key of block `index` behind the one with key `before`."""
    private = (index + 1) * len(tokens) > scope.own_tokens
    whose = b"t" + _framed(scope.tenant) if private else b"v"
    return _digest(before, whose, struct.pack(f"<{len(tokens)}I", *tokens))


def _framed(*texts: str) -> bytes:
    """Texts behind their lengths, so that no two lists of texts look alike."""
    return b"".join(struct.pack("<I", len(raw)) + raw for raw in (text.encode() for text in texts))


def _digest(*parts: bytes) -> bytes:
    return hashlib.blake2b(b"".join(parts), digest_size=16).digest()
