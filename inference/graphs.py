"""Steps that only decode, as CUDA graphs: the whole forward pass is recorded once and then replayed.

A graph reads and writes the same memory each time, so there is one for each number of rows in ROWS, and a step takes the next
larger one: the rows left over compute a token that nobody reads, write to block 0, which is nobody's, and see only that.
Graphs without adapters are recorded when the model is loaded. With adapters that cannot be done, since it is not known yet
which layouts will come; those are recorded when a stack is first met by a step of that size, which costs three more.

On a processor nothing is recorded: a replay is the forward pass itself over the same memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from inference.attention import KeyValueStore, Piece, slots_of
from inference.lora import Adapter
from inference.lora_batch import Stack, Stacks, Views
from inference.model import GPT
from inference.varlen import Kernel, StepTables, VarlenAttention, block_rows

ROWS = (1, 2, 4, 8, 16, 32, 64)
MOST_BLOCKS = 128  # of a sequence: 32,768 tokens in blocks of 256
WARM_UP_STEPS = 2  # before a graph is recorded, so that what happens only once is not in it


class DecodingStep:
    """One step of up to `rows` sequences that add a token each, over memory that stays the same."""

    def __init__(
        self, model: GPT, store: KeyValueStore, kernel: Kernel, *, rows: int, width: int, adapters: Views | None, pool: Any
    ) -> None:
        """`width`: blocks of a sequence at most. `pool`: memory that the graphs share, one after the other; None on a processor."""
        device = store.keys.device
        self._model, self._store, self._kernel = model, store, kernel
        self._inputs = torch.zeros(3, rows, dtype=torch.int64, device=device)  # tokens, positions, slots
        self._starts = torch.arange(rows + 1, dtype=torch.int32, device=device)
        self._lengths = torch.ones(rows, dtype=torch.int32, device=device)
        self._blocks = torch.zeros(rows, width, dtype=torch.int32, device=device)
        self._lora = None if adapters is None else RowAdapters(adapters, rows=rows, device=device)
        self._replay: Callable[[], Tensor] = self._compute if pool is None else self._recorded(pool)

    def __call__(self, tokens: Sequence[int], pieces: Sequence[Piece], places: Sequence[int | None] | None) -> Tensor:
        """Hidden states of the pieces' tokens, float32 [n, hidden]. `places`: of each piece, the row of its adapter in the stack."""
        n, size = len(tokens), self._store.block_size
        self._inputs.zero_()
        self._inputs[:, :n].copy_(torch.tensor([list(tokens), [piece.start for piece in pieces], slots_of(pieces, size)]))
        self._lengths.fill_(1)
        self._lengths[:n].copy_(torch.tensor([piece.end for piece in pieces]))
        blocks = torch.tensor(block_rows(pieces, size))
        self._blocks.zero_()
        self._blocks[:n, : blocks.shape[1]].copy_(blocks)
        if self._lora is not None and places is not None:
            self._lora.point(places)
        return self._replay()[:n].clone()

    def _compute(self) -> Tensor:
        tokens, positions, slots = self._inputs
        longest = self._blocks.shape[1] * self._store.block_size
        tables = StepTables(slots, self._starts, self._lengths, self._blocks, most_tokens=1, longest=longest)
        hidden: Tensor = self._model(tokens, positions, VarlenAttention(self._store, tables, self._kernel), self._lora)
        return hidden

    def _recorded(self, pool: Any) -> Callable[[], Tensor]:
        device = self._store.keys.device
        beside = torch.cuda.Stream(device)
        beside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(beside):
            for _ in range(WARM_UP_STEPS):
                self._compute()
        torch.cuda.current_stream(device).wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        # Threads that read adapters take pinned memory meanwhile; only this one's calls are to be held to the rules.
        with torch.cuda.graph(graph, pool=pool, stream=beside, capture_error_mode="thread_local"):
            hidden = self._compute()

        def replay() -> Tensor:
            graph.replay()
            return hidden

        return replay


class RowAdapters:
    """The LoRA path of a step whose memory stays the same: each row's matrices are picked from a stack by number."""

    def __init__(self, parts: Views, *, rows: int, device: torch.device) -> None:
        self._parts = parts
        self._places = torch.zeros(rows, dtype=torch.int64, device=device)
        self._without = torch.ones(rows, 1, dtype=torch.bool, device=device)

    def point(self, places: Sequence[int | None]) -> None:
        """Which row of the stack is for which row of the step; None: none is."""
        filled = [*places, *([None] * (len(self._places) - len(places)))]
        self._places.copy_(torch.tensor([place or 0 for place in filled]))
        self._without[:, 0].copy_(torch.tensor([place is None for place in filled]))

    def add(self, projection: str, x: Tensor, y: Tensor) -> Tensor:
        """y, to which each row's adapter of x was added. x: [rows, in]; y: [rows, out]."""
        if (pair := self._parts.get(projection)) is None:
            return y
        a, b = (part.index_select(0, self._places) for part in pair)  # [rows, rank, in], [rows, rank, out]
        inner = torch.bmm(x.to(a.dtype)[:, None], a.transpose(1, 2))
        # Not multiplied by zero: a row of the stack that nobody filled may hold NaN.
        return y.add_(torch.bmm(inner, b)[:, 0].masked_fill(self._without, 0))


class DecodingGraphs:
    """The recorded steps of an engine."""

    @torch.inference_mode()
    def __init__(self, model: GPT, store: KeyValueStore, kernel: Kernel, stacks: Stacks) -> None:
        self._model, self._store, self._kernel, self._stacks = model, store, kernel, stacks
        longest = min(model.config.context_length, (store.keys.shape[1] - 1) * store.block_size)
        self._width = min(-(-longest // store.block_size), MOST_BLOCKS)
        self._pool = torch.cuda.graph_pool_handle() if store.keys.device.type == "cuda" else None
        # The largest first: the others then find its memory in the pool.
        self._plain = {rows: self._step(rows) for rows in reversed(ROWS)}
        # Held by the stacks themselves: one that is dropped or made anew takes its graphs along.
        self._adapted: WeakKeyDictionary[Stack, dict[int, DecodingStep]] = WeakKeyDictionary()

    @torch.inference_mode()
    def hidden(self, tokens: Sequence[int], pieces: Sequence[Piece], adapters: Sequence[Adapter | None] | None) -> Tensor | None:
        """As `Runner.hidden`; None where no graph is of use: more than decoding, too many rows, too long, adapters not alike."""
        rows = next((rows for rows in ROWS if rows >= len(pieces)), None)
        longest = self._width * self._store.block_size
        if rows is None or any(piece.count != 1 or piece.end > longest for piece in pieces):
            return None
        if adapters is None or not any(adapters):
            return self._plain[rows](tokens, pieces, None)
        if (placed := self._stacks.placed(adapters)) is None:
            return None
        stack, places = placed
        steps = self._adapted.setdefault(stack, {})
        if rows not in steps:
            steps[rows] = self._step(rows, stack.parts)
        return steps[rows](tokens, pieces, places)

    def _step(self, rows: int, adapters: Views | None = None) -> DecodingStep:
        return DecodingStep(self._model, self._store, self._kernel, rows=rows, width=self._width, adapters=adapters, pool=self._pool)
