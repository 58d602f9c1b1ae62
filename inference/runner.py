"""What computes an engine's steps: a model together with the keys and values of its block pool.

The scheduler decides which tokens a step computes; a runner computes them. There are three: this one in torch, for every device;
`inference.flash_runner`, which is this one with one attention kernel for the whole step, on CUDA; and `inference.native`, for processors
with a compiler at hand. They give the same numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from inference.attention import KeyValueStore, PagedAttention, Piece
from inference.cache import BLOCK_SIZE
from inference.lora import Adapter
from inference.lora_batch import Stacks
from inference.model import GPT, Attention


@dataclass
class Watched:
    """The layers of which a step shows how tokens look at each other."""

    layers: Collection[int]
    # By layer, filled by the step: queries [n, heads, head_dim] and keys [n, kv_heads, head_dim] as they meet, turned by position.
    seen: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)


class Runner(Protocol):
    name: str  # for stats
    device: torch.device
    adapter_dtype: torch.dtype  # in which adapters are given to `hidden`
    blocks: int  # that can be given out
    block_size: int  # tokens of each
    keys: Tensor  # [layers, blocks + 1, …], as `values`; block 0 is nobody's
    values: Tensor

    def hidden(
        self, tokens: Sequence[int], pieces: Sequence[Piece], adapters: Sequence[Adapter | None] | None, watched: Watched | None = None
    ) -> Tensor:
        """Computes the pieces' tokens, whose keys and values go into their blocks.

        tokens: those of all pieces one behind the other, [n]; adapters: of each piece, None when no piece has one;
        watched: takes up the queries and keys of some layers.
        Returns the normed hidden states, float32 [n, hidden].
        """
        ...

    def expect(self, adapter: Adapter) -> None:
        """Hears of an adapter that will soon be given to `hidden`."""
        ...

    def bound_stacks(self, size_bytes: int) -> None:
        """What it may copy adapters into, if it does."""
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """float32 [n, hidden] to float32 [n, vocabulary]."""
        ...

    def zero(self, blocks: Sequence[int]) -> None:
        """Clears freed blocks: a NaN left in masked values would leak through the softmax's product with zero."""
        ...

    def copy(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copies the first block of each pair over the second, keys and values of all layers."""
        ...


def copy_blocks(keys: Tensor, values: Tensor, pairs: Sequence[tuple[int, int]]) -> None:
    for store in (keys, values):
        for source, target in pairs:
            store[:, target] = store[:, source]


class _Watching:
    """An attention that also notes what it was given."""

    def __init__(self, attention: Attention, watched: Watched, *, query_scale: float) -> None:
        self._attention = attention
        self._watched = watched
        self._query_scale = query_scale

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, *, window: int | None) -> Tensor:
        if layer in self._watched.layers:
            self._watched.seen[layer] = q / self._query_scale, k
        return self._attention(layer, q, k, v, window=window)


class TorchRunner:
    name = "torch"
    block_size = BLOCK_SIZE
    by_head = True  # how its store is laid out

    def __init__(self, model: GPT, blocks: int) -> None:
        """`model` is used as it stands: on its device, in its dtype. `blocks`: of BLOCK_SIZE, for as many tokens as fit them."""
        self.device = model.device
        self.adapter_dtype = model.dtype
        self._model = model
        self.blocks = max(blocks * BLOCK_SIZE // self.block_size, 1)
        self._store = store = KeyValueStore(
            model.config, blocks=self.blocks, block_size=self.block_size, dtype=model.dtype, device=model.device, by_head=self.by_head
        )
        self.keys, self.values = store.keys, store.values
        self._stacks = Stacks(device=self.device, dtype=self.adapter_dtype)

    def hidden(
        self, tokens: Sequence[int], pieces: Sequence[Piece], adapters: Sequence[Adapter | None] | None, watched: Watched | None = None
    ) -> Tensor:
        positions = [position for piece in pieces for position in range(piece.start, piece.end)]
        lora = None if adapters is None else self._stacks.batch([(a, piece.count) for a, piece in zip(adapters, pieces, strict=True)])
        attention = self._attention(pieces)
        if watched is not None:
            attention = _Watching(attention, watched, query_scale=self._model.config.query_scale)
        hidden: Tensor = self._model(self._tensor(tokens), self._tensor(positions), attention, lora)
        return hidden

    def _attention(self, pieces: Sequence[Piece]) -> Attention:
        return PagedAttention(self._store, pieces)

    def expect(self, adapter: Adapter) -> None:
        self._stacks.expect(adapter)

    def bound_stacks(self, size_bytes: int) -> None:
        self._stacks.budget_bytes = size_bytes

    def logits(self, hidden: Tensor) -> Tensor:
        return self._model.sharp_logits(hidden)

    def zero(self, blocks: Sequence[int]) -> None:
        self._store.zero(blocks)

    def copy(self, pairs: Sequence[tuple[int, int]]) -> None:
        copy_blocks(self.keys, self.values, pairs)

    def _tensor(self, values: Sequence[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self.device)
