"""In which numbers a worker keeps the matrices of each base, as its operator says it.

WORKER_DTYPE=bfloat16                       every base
WORKER_DTYPE="bfloat16 3fa9c1d2=int8"       but the base whose digest begins with 3fa9c1d2 in int8
WORKER_DTYPE="3fa9c1d2=int8"                the others in what suits the machine
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from inference import building
from inference.footprint import DTYPE_BYTES, native_dtype

DIGEST_BEGINNING = re.compile(r"[0-9a-f]{6,64}")


def usual_dtype(device: str = "auto") -> str:
    """What suits the machine: bfloat16 where it, or the C++ part, computes with it."""
    return "bfloat16" if building.compiler() else native_dtype(device)


@dataclass(frozen=True)
class Precision:
    usual: str  # dtype
    of_single: Mapping[str, str] = field(default_factory=dict)  # beginning of a base's digest -> dtype

    @classmethod
    def read(cls, said: str, *, usual: str) -> Precision:
        """`usual` where nothing else is said. Raises ValueError that says what is wrong with it."""
        of_single = {}
        for word in said.replace(",", " ").split():
            base, single, dtype = word.rpartition("=")
            if dtype not in DTYPE_BYTES:
                raise ValueError(f"{word!r} names no number format; there are: {', '.join(DTYPE_BYTES)}")
            if not single:
                usual = dtype
            elif DIGEST_BEGINNING.fullmatch(base):
                of_single[base] = dtype
            else:
                raise ValueError(f"{word!r}: a base is named by the beginning of its digest, at least 6 of its characters")
        return cls(usual, of_single)

    def of(self, base: str) -> str:
        """The dtype of a base, by its digest."""
        return next((dtype for beginning, dtype in self.of_single.items() if base.startswith(beginning)), self.usual)
