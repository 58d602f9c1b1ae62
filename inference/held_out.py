"""Which examples are kept aside to measure on, and whether what they say is trained on all the same."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from inference.copies import Copies
from inference.protocol import MAX_HELD_OUT

KEPT_LINES = 5


def held_out(count: int, *, share: float, seed: int) -> frozenset[int]:
    """Their numbers, by the seed alone. At least one where a share is asked for, and never all."""
    import torch  # not above: the command line, which says what can be learned from, loads no torch

    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    held = min(round(count * share), MAX_HELD_OUT, count - 1)
    if share > 0 and count > 1:
        held = max(held, 1)
    return frozenset(order[:held]) if held > 0 else frozenset()


@dataclass(frozen=True)
class Overlap:
    """How many of the held-out examples stand in another record that is trained on, word for word or nearly."""

    held_out: int
    exact: int
    near: int  # beside the exact ones
    lines: tuple[int, ...]  # the first of both


def overlap(copies: Copies, held: frozenset[int], *, record_of: Sequence[int], line_of: Sequence[int]) -> Overlap:
    """`record_of` has the number of each example's record in `copies`, `line_of` the line of each record. Pieces of one long text
    are no copies of each other.
    """
    same: dict[bytes, set[int]] = defaultdict(set)
    alike: dict[int, set[int]] = defaultdict(set)
    for number, record in enumerate(record_of):
        if number not in held:
            same[copies.exact[record]].add(record)
            alike[copies.groups[record]].add(record)
    exact = near = 0
    lines = []
    for number in sorted(held):
        record = record_of[number]
        if same[copies.exact[record]] - {record}:
            exact += 1
        elif alike[copies.groups[record]] - {record}:
            near += 1
        else:
            continue
        lines.append(line_of[record])
    return Overlap(len(held), exact, near, tuple(lines[:KEPT_LINES]))
