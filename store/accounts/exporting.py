"""Everything the store holds of a person, as a ZIP of JSON files: one for each table, and one that says what they are.

It is written into a temporary file row by row, so that it takes no more memory for somebody with a million requests, and read
from there: the database is given back before the first byte is sent.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Iterable
from typing import IO, Any

from django.core.serializers.json import DjangoJSONEncoder
from django.db.models import ForeignKey, Model
from django.utils import timezone

from store.accounts import personal_data
from store.accounts.models import User
from store.accounts.personal_data import Holding

IN_MEMORY_BYTES = 1_000_000
ROWS_AT_ONCE = 500


def write(user: User) -> IO[bytes]:
    """The archive, at its beginning; gone when it is closed."""
    file = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY_BYTES)  # noqa: SIM115 (who sends it closes it)
    contents = []
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for holding in personal_data.holdings():
            name = f"{holding.name}.json"
            with archive.open(name, "w", force_zip64=True) as rows:
                count = _write_rows(rows, holding, user)
            contents.append({"file": name, "rows": count, "kept_after_deletion": str(holding.kept) or None})
        about = {"store": "GPT Store", "user": user.public_id, "made_at": timezone.now(), "contents": contents}
        archive.writestr("contents.json", _json(about))
    file.seek(0)
    return file


def _write_rows(file: IO[bytes], holding: Holding, user: User) -> int:
    count = 0
    file.write(b"[")
    for count, row in enumerate(_rows(holding, user), start=1):
        file.write((b",\n" if count > 1 else b"\n") + _json(row))
    file.write(b"\n]\n")
    return count


def _rows(holding: Holding, user: User) -> Iterable[dict[str, Any]]:
    fields = [field for field in holding.table._meta.concrete_fields if field.name not in holding.hidden]
    named = [field.name for field in fields if isinstance(field, ForeignKey)]
    for row in holding.rows(user).select_related(*named).iterator(chunk_size=ROWS_AT_ONCE):
        yield {field.name: _value(row, field) for field in fields}


def _value(row: Model, field: Any) -> Any:
    """What a row points to is told by its public id, where it has one."""
    if not isinstance(field, ForeignKey):
        return getattr(row, field.attname)
    target = getattr(row, field.name)
    return None if target is None else getattr(target, "public_id", None) or str(target)


def _json(value: Any) -> bytes:
    return json.dumps(value, cls=DjangoJSONEncoder, ensure_ascii=False).encode()
