"""softmax(QKᵀ/√d)V for the two ways tokens come: whole sequences packed together, and steps over a paged cache.

Grouped queries are laid out as [kv_heads, group, …] and the keys broadcast over the group, rather than with
`enable_gqa`, which was measured 3 to 5 times slower in decoding on CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from inference.config import GPTConfig


class CausalAttention:
    """Whole sequences packed one behind the other; each token sees its own sequence up to itself.

    For training and scoring: nothing is kept, gradients flow.
    """

    def __init__(self, lengths: Sequence[int]) -> None:
        self._lengths = list(lengths)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, *, window: int | None) -> Tensor:
        parts = zip(q.split(self._lengths), k.split(self._lengths), v.split(self._lengths), strict=True)
        return torch.cat([_causal(*part, window=window) for part in parts])


def _causal(q: Tensor, k: Tensor, v: Tensor, *, window: int | None) -> Tensor:
    """One whole sequence. q: [n, heads, d]; k, v: [n, kv_heads, d]."""
    length = len(q)
    mask = None if window is None or length <= window else visible(torch.arange(length, device=q.device), length, window)
    return _attend_grouped(q, k.transpose(0, 1), v.transpose(0, 1), mask)


def _attend_grouped(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """q: [n, heads, d]; k, v: [kv_heads, seen, d]; mask: bool [n, seen], None for a whole causal sequence."""
    (n, heads, head_dim), kv_heads = q.shape, len(k)
    group = heads // kv_heads
    queries = q.view(n, kv_heads, group, head_dim).permute(1, 2, 0, 3)  # [kv_heads, group, n, d]
    keys, values = (its[:, None].expand(-1, group, -1, -1) for its in (k, v))
    seen = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, is_causal=mask is None)
    return seen.permute(2, 0, 1, 3).reshape(n, heads, head_dim)


def visible(positions: Tensor, length: int, window: int | None) -> Tensor:
    """Which of `length` keys the query at each position sees: bool [n, length]."""
    keys = torch.arange(length, device=positions.device)
    behind = positions[:, None] - keys
    seen = behind >= 0
    return seen if window is None else seen & (behind < window)


@dataclass(frozen=True)
class Piece:
    """The next tokens of one sequence in a step: `count` tokens from position `start`, with its blocks so far."""

    start: int
    count: int
    blocks: Sequence[int]

    @property
    def end(self) -> int:
        return self.start + self.count


def slots_of(pieces: Sequence[Piece], block_size: int) -> list[int]:
    """Where each token of a step goes, counted over the tokens of all blocks."""
    size = block_size
    return [piece.blocks[at // size] * size + at % size for piece in pieces for at in range(piece.start, piece.end)]


class KeyValueStore:
    """The keys and values of all blocks of all layers. Block 0 is never given out: padding points to it."""

    def __init__(
        self, config: GPTConfig, *, blocks: int, block_size: int, dtype: torch.dtype, device: torch.device, by_head: bool = True
    ) -> None:
        """`by_head`: within a block the tokens of a head stand together, as PagedAttention reads them, else the heads of a token."""
        block = (config.kv_heads, block_size) if by_head else (block_size, config.kv_heads)
        # Keys and values of a layer stand one behind the other, so that one operation writes or reads both.
        self._both = torch.zeros((config.layers, 2, blocks + 1, *block, config.head_dim), dtype=dtype, device=device)
        self.keys, self.values = self._both.unbind(1)
        self.block_size = block_size
        self._gathered = self._both.new_empty(0)

    def heads_of(self, blocks: Tensor) -> Tensor:
        """Where the part of each head stands among those of a layer: [..., 2 * kv_heads], of keys, then of values. By head only."""
        count, kv_heads = self.keys.shape[1:3]
        heads = torch.arange(kv_heads, device=blocks.device)
        return blocks[..., None] * kv_heads + torch.cat((heads, heads + count * kv_heads))

    def write(self, layer: int, slots: Tensor, k: Tensor, v: Tensor) -> None:
        """slots: of each token's keys, then its values, into the tokens of all heads' parts, [n * 2 * kv_heads]; k, v: [n, kv_heads, d]."""
        new = torch.cat((k, v), dim=1).flatten(0, 1)
        self._both[layer].view(-1, new.shape[-1]).index_copy_(0, slots, new)

    def gathered(self, layer: int, parts: Tensor) -> Tensor:
        """These parts of heads one behind the other, [parts, block_size * d], until the next call.

        They are copied into memory kept from step to step: pages given back and asked for at every layer took longer than all
        else of decoding 32 rows.
        """
        size = self.block_size * self.keys.shape[-1]
        if self._gathered.numel() < len(parts) * size:
            self._gathered = self._both.new_empty(len(parts) * size)
        into = self._gathered[: len(parts) * size].view(-1, size)
        return torch.index_select(self._both[layer].view(-1, size), 0, parts, out=into)

    def zero(self, blocks: Sequence[int]) -> None:
        """Clears freed blocks: a NaN left in masked keys or values would leak through the softmax's product with zero."""
        where = torch.tensor(blocks, device=self.keys.device)
        self.keys.index_fill_(1, where, 0)
        self.values.index_fill_(1, where, 0)


@dataclass(frozen=True)
class _Decoding:
    """Sequences that add one token each and have about as many blocks: one padded gather serves them together."""

    rows: slice | Tensor  # the b of the step's tokens
    table: Tensor  # [2 * b * kv_heads * width] the parts of each head, those of keys before those of values, padded with block 0's
    keys: int  # how many each sees, padding included
    positions: Tensor  # [b]


class PagedAttention:
    """One step over the paged cache: writes the step's keys and values into their blocks, then attends."""

    def __init__(self, store: KeyValueStore, pieces: Sequence[Piece]) -> None:
        """`pieces` in the order in which their tokens stand in the step."""
        self._store = store
        self._device = store.keys.device
        slots = torch.tensor(slots_of(pieces, store.block_size), device=self._device)
        blocks, within = slots // store.block_size, slots % store.block_size
        self._written = (store.heads_of(blocks) * store.block_size + within[:, None]).flatten()  # [n * 2 * kv_heads]
        self._chunks: list[tuple[slice, Piece, Tensor]] = []
        decoding: dict[int, list[tuple[int, Piece]]] = {}
        row = 0
        for piece in pieces:
            if piece.count == 1:
                decoding.setdefault(_bucket(self._block_count(piece)), []).append((row, piece))
            else:
                seen = torch.tensor(piece.blocks[: self._block_count(piece)], device=self._device)
                self._chunks.append((slice(row, row + piece.count), piece, store.heads_of(seen).t().flatten()))
            row += piece.count
        self._decoding = [self._together(members) for members in decoding.values()]
        self._masks: dict[tuple[int, int | None], Tensor] = {}

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, *, window: int | None) -> Tensor:
        self._store.write(layer, self._written, k, v)
        parts: list[tuple[slice | Tensor, Tensor]] = [
            (together.rows, self._attend_decoding(q[together.rows], layer, together, self._decoding_mask(number, window, q.dtype)))
            for number, together in enumerate(self._decoding)
        ]
        for number, (rows, piece, blocks) in enumerate(self._chunks):
            keys, values = self._seen(layer, k[rows], v[rows], piece, blocks)
            parts.append((rows, _attend_grouped(q[rows], keys, values, self._chunk_mask(number, window))))
        if len(parts) == 1:
            return parts[0][1]
        out = torch.empty_like(q)
        for of_part, part in parts:
            out[of_part] = part
        return out

    def _block_count(self, piece: Piece) -> int:
        return -(-piece.end // self._store.block_size)

    def _together(self, members: list[tuple[int, Piece]]) -> _Decoding:
        width = max(self._block_count(piece) for _, piece in members)
        table = [[*piece.blocks[: self._block_count(piece)], *([0] * (width - self._block_count(piece)))] for _, piece in members]
        rows = [row for row, _ in members]
        parts = self._store.heads_of(torch.tensor(table, device=self._device)).unflatten(-1, (2, -1))  # [b, width, 2, kv_heads]
        return _Decoding(
            rows=slice(rows[0], rows[-1] + 1) if rows[-1] - rows[0] < len(rows) else torch.tensor(rows, device=self._device),
            table=parts.permute(2, 0, 3, 1).flatten(),
            keys=width * self._store.block_size,
            positions=torch.tensor([piece.start for _, piece in members], device=self._device),
        )

    def _decoding_mask(self, number: int, window: int | None, dtype: torch.dtype) -> Tensor:
        """Added to scores: 0 for the keys that each sees, else minus infinity; [b, 1, 1, keys]."""
        if (key := (number, window)) not in self._masks:
            together = self._decoding[number]
            hidden = ~visible(together.positions, together.keys, window)[:, None, None]
            self._masks[key] = torch.zeros_like(hidden, dtype=dtype).masked_fill_(hidden, -torch.inf)
        return self._masks[key]

    def _chunk_mask(self, number: int, window: int | None) -> Tensor | None:
        _, piece, _ = self._chunks[number]
        if piece.start == 0 and (window is None or piece.end <= window):
            return None
        if (key := (-1 - number, window)) not in self._masks:
            self._masks[key] = visible(torch.arange(piece.start, piece.end, device=self._device), piece.end, window)
        return self._masks[key]

    def _seen(self, layer: int, k: Tensor, v: Tensor, piece: Piece, blocks: Tensor) -> Sequence[Tensor]:
        """Keys and values, [kv_heads, seen, d], that a chunk sees: its own where nothing stands before it."""
        if not piece.start:
            return k.transpose(0, 1), v.transpose(0, 1)
        both = self._store.gathered(layer, blocks).view(2, k.shape[1], -1, k.shape[2])
        return [its[:, : piece.end] for its in both]

    def _attend_decoding(self, q: Tensor, layer: int, together: _Decoding, mask: Tensor) -> Tensor:
        """q: [b, heads, d]. The group of queries that share a key head stands where a sequence would."""
        b, heads, head_dim = q.shape
        keys, values = self._store.gathered(layer, together.table).view(2, b, -1, together.keys, head_dim)
        grouped = q.reshape(b, keys.shape[1], -1, head_dim)
        return F.scaled_dot_product_attention(grouped, keys, values, attn_mask=mask).reshape(b, heads, head_dim)


def _bucket(blocks: int) -> int:
    """Sequences of one bucket are gathered together: their lengths differ by less than a factor of two above 16 blocks."""
    return max(blocks - 1, 15).bit_length()
