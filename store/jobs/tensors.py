"""The header of a safetensors file (https://github.com/huggingface/safetensors#format), looked at as soon as it has arrived.

So a file that is none, or holds what no engine here computes with, is refused after its first piece. Whether it belongs to a
model, a worker checks when all files are here.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from itertools import chain
from typing import IO, Any

from django.utils.translation import gettext as _

from store.catalog import staging
from store.jobs.errors import FileRejected
from store.jobs.models import Upload, UploadedFile

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 16 * 1024 * 1024
MAX_TENSORS = 100_000
BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U8": 8, "BOOL": 8}
COMPUTED = frozenset({"F32", "F16", "BF16"})
TABLES = (".bias", "inv_freq", "position_ids", "masked_bias")  # what some old checkpoints carry beside weights, in other numbers


@dataclass(frozen=True)
class Held:
    """What a file holds, as its header says."""

    tensors: int
    numbers: int
    types: tuple[str, ...]


def check_arrived(upload: Upload, piece: IO[bytes], size_bytes: int) -> None:
    """Looks at the header of a model's weights with the piece that makes it whole. Raises FileRejected."""
    if upload.purpose != UploadedFile.Purpose.MODEL or not upload.name.endswith(".safetensors"):
        return
    begin, end = upload.offset_bytes, upload.offset_bytes + size_bytes
    if begin >= LENGTH_BYTES + MAX_HEADER_BYTES or end < LENGTH_BYTES:
        return
    arrived = _beginning(upload, piece, min(end, LENGTH_BYTES + MAX_HEADER_BYTES))
    whole_at = LENGTH_BYTES + header_bytes(arrived, upload.length_bytes)
    if begin < whole_at <= end:
        held_by(arrived[LENGTH_BYTES:whole_at], upload.length_bytes - whole_at)


def header_bytes(beginning: bytes, length_bytes: int) -> int:
    """How long the header is, from the first 8 bytes. Raises FileRejected."""
    (size,) = struct.unpack("<Q", beginning[:LENGTH_BYTES])
    if not 2 <= size <= min(MAX_HEADER_BYTES, length_bytes - LENGTH_BYTES) or beginning[LENGTH_BYTES : LENGTH_BYTES + 1] not in (b"", b"{"):
        raise FileRejected(_("This is not a safetensors file, whatever its name says. Save the weights as safetensors."), param="file")
    return int(size)


def held_by(header: bytes, data_bytes: int) -> Held:
    """What the tensors are, which must lie one after the other in the `data_bytes` behind the header. Raises FileRejected."""
    try:
        told = json.loads(header.decode())
        told.pop("__metadata__", None)
        tensors = {name: (entry["dtype"], list(entry["shape"]), list(entry["data_offsets"])) for name, entry in told.items()}
    except (UnicodeDecodeError, ValueError, RecursionError, AttributeError, KeyError, TypeError) as error:
        raise FileRejected(_("The header of this safetensors file can't be read: it is damaged."), param="file") from error
    if not 0 < len(tensors) <= MAX_TENSORS:
        raise FileRejected(_("This file holds no tensors, or too many."), param="file")
    numbers = sum(_checked(name, *entry) for name, entry in tensors.items())
    edges = sorted(offsets for _type, _shape, offsets in tensors.values())
    if [begin for begin, _end in edges] + [data_bytes] != [0, *(end for _begin, end in edges)]:
        raise FileRejected(_("The header of this safetensors file does not fit its length: it was cut off, or is damaged."), param="file")
    return Held(len(tensors), numbers, tuple(sorted({kind for kind, _shape, _offsets in tensors.values()})))


def _checked(name: str, kind: Any, shape: list[Any], offsets: list[Any]) -> int:
    """How many numbers the tensor has."""
    whole = all(isinstance(number, int) and not isinstance(number, bool) and 0 <= number < 2**48 for number in chain(shape, offsets))
    if not whole or len(shape) > 8 or len(offsets) != 2 or kind not in BITS:
        what = {"tensor": name[:100], "kind": str(kind)[:20]}
        raise FileRejected(_("The tensor %(tensor)s is stored as %(kind)s, which is not supported, or has no shape.") % what, param="file")
    numbers = math.prod(shape)
    if offsets[1] - offsets[0] != numbers * BITS[kind] // 8:
        raise FileRejected(_("The tensor %(tensor)s is not as long as its shape says.") % {"tensor": name[:100]}, param="file")
    if kind not in COMPUTED and not name.endswith(TABLES):
        what = {"tensor": name[:100], "kind": kind}
        message = _("The tensor %(tensor)s is stored as %(kind)s. Save the weights as float32, float16 or bfloat16, not quantised.")
        raise FileRejected(message % what, param="file")
    return numbers


def _beginning(upload: Upload, piece: IO[bytes], size_bytes: int) -> bytes:
    """The first bytes of the file, of which `piece` is the last that has arrived."""
    before = staging.joined(upload.pieces).read(size_bytes) if upload.pieces else b""
    piece.seek(0)
    return before + piece.read(size_bytes - len(before))
