"""How values are written into Django's cache: as JSON.

The cache shares its server with the broker. Django's own way would unpickle whatever it finds there, so that whoever can write
to that server could run code in a web process.
"""

from __future__ import annotations

import json
from typing import Any


class JSONSerializer:
    """Tuples come back as lists; what JSON does not know is refused when it is written (TypeError)."""

    def dumps(self, value: Any) -> bytes | int:
        return value if type(value) is int else json.dumps(value).encode()  # a bare number, so that the server can count with it

    def loads(self, raw: bytes) -> Any:
        return json.loads(raw)
