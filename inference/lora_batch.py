"""Many adapters in one forward pass.

Adapters of one layout that have few tokens in a step are multiplied side by side: their numbers stand in a stack, a row
for each, so that one batched product serves them all without copying weights at every step. An adapter is copied into
the stack when it joins the batch and stays there until its row is wanted. One with many tokens, or alone in its layout, is
multiplied from where it lies. Tokens without an adapter cost nothing, and a batch without adapters has no LoRA path at all.

On processors all of it is float32, whatever the adapters are kept in: that was measured faster than bfloat16 with and
without instructions for it, and leaves the numbers the same alone and in a batch but for their last digits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain, pairwise
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from inference.footprint import STACK_BYTES
from inference.lora import Adapter, Layout

Views = Mapping[str, tuple[Tensor, Tensor]]  # A [..., rank, in] and B transposed [..., rank, out] by projection

FEW_TOKENS = 4  # of one adapter in a step; with more, the padding of a stack costs more than a product of its own
ENOUGH = 3  # adapters that are worth a stack
SMALLEST_STACK = 4
MOST_IN_STACK = 64


class LoraBatch:
    """The adapters of one step, each with the rows of the step's tokens it is for."""

    def __init__(self, parts: Sequence[_Alone | _SideBySide], *, dtype: torch.dtype) -> None:
        self._parts = parts
        self._dtype = dtype
        self._x: Tensor | None = None
        self._widened: Tensor | None = None

    @classmethod
    def for_all(cls, adapter: Adapter) -> LoraBatch:
        """One adapter for every token; it lies where the model is."""
        return cls([_Alone(adapter.parts, slice(None))], dtype=_computed_in(adapter.flat))

    def add(self, projection: str, x: Tensor, y: Tensor) -> Tensor:
        """y, to which each row's adapter of x was added. x: [n, in]; y: [n, out]."""
        if x is not self._x or self._widened is None:  # several projections read the same x
            self._x, self._widened = x, x.to(self._dtype)
        for part in self._parts:
            part.add(projection, self._widened, y)
        return y


class _Alone:
    """One adapter, and the rows it is for."""

    def __init__(self, parts: Views, rows: slice | Tensor) -> None:
        self._parts = parts
        self._rows = rows

    def add(self, projection: str, x: Tensor, y: Tensor) -> None:
        if (pair := self._parts.get(projection)) is None:
            return
        a, b = pair[0].to(x.dtype), pair[1].to(x.dtype)
        inner = x[self._rows] @ a.t()
        if isinstance(self._rows, Tensor):
            y.index_add_(0, self._rows, (inner @ b).to(y.dtype))
        elif y.dtype == b.dtype:
            y[self._rows].addmm_(inner, b)
        else:
            y[self._rows] += inner @ b


class _SideBySide:
    """Rows of a stack, each with the rows of the batch it is for; at most `width` of them, the rest is padding."""

    def __init__(self, parts: Views, rows: Sequence[Sequence[int]], *, device: torch.device) -> None:
        used = sorted(chain.from_iterable(rows))
        self._parts = parts
        self._count, self._width = len(rows), max(map(len, rows))
        self._span = slice(used[0], used[-1] + 1)
        self._aligned = self._width == 1 and [list(its) for its in rows] == [[row] for row in range(used[0], used[0] + len(rows))]
        if self._aligned:
            return
        taken = [its[at] if at < len(its) else used[0] for its in rows for at in range(self._width)]
        place = {row: at for at, row in enumerate(taken) if at % self._width < len(rows[at // self._width])}
        nothing = self._count * self._width  # the row of zeros behind the products
        self._taken = torch.tensor(taken, device=device)
        self._back = torch.tensor([place.get(row, nothing) for row in range(used[0], used[-1] + 1)], device=device)
        self._products: dict[int, Tensor] = {}  # by their width
        self._x: Tensor | None = None
        self._gathered: Tensor | None = None

    def add(self, projection: str, x: Tensor, y: Tensor) -> None:
        if (pair := self._parts.get(projection)) is None:
            return
        a, b = pair[0][: self._count], pair[1][: self._count]
        if self._aligned:
            inner = torch.bmm(x[self._span, None], a.transpose(1, 2))
            if y.dtype == b.dtype:
                y[self._span, None].baddbmm_(inner, b)
            else:
                y[self._span] += torch.bmm(inner, b)[:, 0]
            return
        if x is not self._x or self._gathered is None:
            self._x, self._gathered = x, x.index_select(0, self._taken).unflatten(0, (self._count, self._width))
        outs = b.shape[-1]
        if (products := self._products.get(outs)) is None:
            products = self._products[outs] = b.new_zeros(self._count * self._width + 1, outs)
        inner = torch.bmm(self._gathered, a.transpose(1, 2))
        torch.bmm(inner, b, out=products[:-1].view(self._count, self._width, outs))
        y[self._span] += products.index_select(0, self._back)


class Stacks:
    """Makes the batches of an engine, with copies of adapters side by side for at most `budget_bytes`."""

    def __init__(self, *, device: torch.device, dtype: torch.dtype, budget_bytes: int = STACK_BYTES) -> None:
        self._device = device
        self._dtype = torch.float32 if device.type == "cpu" else dtype
        self.budget_bytes = budget_bytes
        self._stacks: dict[Layout, Stack] = {}
        self._arrivals = _Arrivals(device) if device.type == "cuda" else None
        self._copies = 0

    @property
    def size_bytes(self) -> int:
        return sum(stack.size_bytes for stack in self._stacks.values())

    @property
    def copies(self) -> int:
        """How often an adapter was copied into a stack."""
        return self._copies + sum(stack.copies for stack in self._stacks.values())

    def expect(self, adapter: Adapter) -> None:
        """Begins to bring an adapter to the device that will be wanted there soon."""
        if self._arrivals is not None:
            self._arrivals.begin(adapter)

    def batch(self, chunks: Sequence[tuple[Adapter | None, int]]) -> LoraBatch | None:
        """The LoRA path of a step. chunks: in the order of its rows, which adapter and how many rows; None without adapters."""
        rows: dict[Adapter, list[range]] = {}
        row = 0
        for adapter, count in chunks:
            if adapter is not None:
                rows.setdefault(adapter, []).append(range(row, row + count))
            row += count
        if not rows:
            return None
        alike: dict[Layout, list[Adapter]] = {}
        for adapter in rows:
            alike.setdefault(adapter.layout, []).append(adapter)
        parts: list[_Alone | _SideBySide] = []
        for layout, adapters in alike.items():
            parts += self._parts(layout, {adapter: rows[adapter] for adapter in adapters}, busy=alike)
        return LoraBatch(parts, dtype=self._dtype)

    def placed(self, adapters: Sequence[Adapter | None]) -> tuple[Stack, list[int | None]] | None:
        """The stack in which all of a step's adapters stand, and in which of its rows; None when no single one has them all."""
        different = dict.fromkeys(adapter for adapter in adapters if adapter is not None)
        layouts = {adapter.layout: None for adapter in different}
        if len(layouts) != 1:
            return None
        (layout,) = layouts
        if (stack := self._stack(layout, len(different), busy=layouts)) is None:
            return None
        places = stack.place(list(different), self._here)
        if len(places) < len(different):
            return None
        return stack, [None if adapter is None else places[adapter] for adapter in adapters]

    def _parts(
        self, layout: Layout, rows: Mapping[Adapter, Sequence[range]], *, busy: Mapping[Layout, object]
    ) -> list[_Alone | _SideBySide]:
        few = [adapter for adapter, its in rows.items() if sum(map(len, its)) <= FEW_TOKENS]
        stacked = few if len(few) >= ENOUGH else []
        wanted = stacked if self._arrivals is None else list(rows)  # on a GPU a row of a stack is the adapter's place there
        stack = self._stack(layout, len(wanted), busy=busy) if wanted else None
        places = stack.place(wanted, self._here) if stack else {}
        parts: list[_Alone | _SideBySide] = []
        together = {places[adapter]: list(chain.from_iterable(rows[adapter])) for adapter in stacked if adapter in places}
        if stack and together:
            parts.append(_SideBySide(stack.parts, [together.get(place, []) for place in range(max(together) + 1)], device=self._device))
        for adapter, its in rows.items():
            if places.get(adapter) not in together:
                parts.append(_Alone(self._views(adapter, stack, places), self._rows(its)))
        return parts

    def _views(self, adapter: Adapter, stack: Stack | None, places: Mapping[Adapter, int]) -> Views:
        if self._arrivals is None:
            return adapter.parts
        if stack is not None and adapter in places:
            return stack.views(places[adapter])
        return adapter.layout.views(self._here(adapter))

    def _here(self, adapter: Adapter) -> Tensor:
        """The adapter's numbers, on the device."""
        return adapter.flat if self._arrivals is None else self._arrivals.finish(adapter)

    def _rows(self, its: Sequence[range]) -> slice | Tensor:
        if all(before.stop == behind.start for before, behind in pairwise(its)):
            return slice(its[0].start, its[-1].stop)
        return torch.tensor(list(chain.from_iterable(its)), device=self._device)

    def _stack(self, layout: Layout, wanted: int, *, busy: Mapping[Layout, object]) -> Stack | None:
        """The layout's stack, made anew when it is too small; None when there is no room for one of some use."""
        stack = self._stacks.get(layout)
        rows = min(max(SMALLEST_STACK, 1 << (wanted - 1).bit_length()), MOST_IN_STACK)
        if stack is not None and stack.rows >= rows:
            return stack
        for other in [other for other in self._stacks if other is not layout and other not in busy]:
            if self.size_bytes + rows * layout.size * self._dtype.itemsize > self.budget_bytes:
                self._drop(other)
        row_bytes = layout.size * self._dtype.itemsize
        others = self.size_bytes - (stack.size_bytes if stack else 0)
        rows = min(rows, (self.budget_bytes - others) // row_bytes)
        if rows <= (stack.rows if stack else ENOUGH - 1):
            return stack
        if stack is not None:
            self._drop(layout)
        self._stacks[layout] = Stack(layout, rows, dtype=self._dtype, device=self._device)
        return self._stacks[layout]

    def _drop(self, layout: Layout) -> None:
        self._copies += self._stacks.pop(layout).copies


class Stack:
    """Adapters of one layout in the rows of one tensor."""

    def __init__(self, layout: Layout, rows: int, *, dtype: torch.dtype, device: torch.device) -> None:
        self.rows = rows
        self.copies = 0
        self._layout = layout
        self._numbers = torch.empty(rows, layout.size, dtype=dtype, device=device)
        self._place_of: WeakKeyDictionary[Adapter, int] = WeakKeyDictionary()
        self.parts = layout.views(self._numbers)

    @property
    def size_bytes(self) -> int:
        return self._numbers.nbytes

    def views(self, place: int) -> Views:
        return self._layout.views(self._numbers[place])

    def place(self, adapters: Sequence[Adapter], here: Callable[[Adapter], Tensor]) -> dict[Adapter, int]:
        """In which row each adapter stands, copied there if need be.

        Products read all rows up to the last, so the adapters of a batch stand among the first: one far behind is moved.
        """
        near = min(len(adapters) * 3 // 2, self.rows)
        places = {adapter: row for adapter in adapters if (row := self._place_of.get(adapter, self.rows)) < near}
        taken = set(places.values())
        free = (row for row in range(self.rows) if row not in taken)
        for adapter, row in zip([adapter for adapter in adapters if adapter not in places], free, strict=False):
            for former in [other for other, its in self._place_of.items() if its == row]:
                del self._place_of[former]
            self._numbers[row].copy_(here(adapter))
            self._place_of[adapter] = places[adapter] = row
            self.copies += 1
        return places


class _Arrivals:
    """Adapters on their way to a GPU, copied on a stream of their own while it computes."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._coming: WeakKeyDictionary[Adapter, tuple[Tensor, torch.cuda.Event]] = WeakKeyDictionary()

    def begin(self, adapter: Adapter) -> None:
        if adapter not in self._coming:
            with torch.cuda.stream(self._stream):
                here = adapter.flat.to(self._device, non_blocking=True)
                self._coming[adapter] = (here, self._stream.record_event())

    def finish(self, adapter: Adapter) -> Tensor:
        """The adapter's numbers on the device, for the stream that computes."""
        self.begin(adapter)
        here, arrived = self._coming.pop(adapter)
        computing = torch.cuda.current_stream(self._device)
        computing.wait_event(arrived)
        here.record_stream(computing)
        return here


def _computed_in(flat: Tensor) -> torch.dtype:
    return torch.float32 if flat.device.type == "cpu" else flat.dtype
