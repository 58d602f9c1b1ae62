"""Which bases a worker has answered by a vLLM server that runs beside it, as its operator says it.

WORKER_VLLM="3fa9c1d2=http://127.0.0.1:8100"     the base whose digest begins with 3fa9c1d2
WORKER_VLLM_KEY=…                                 what those servers were started with as --api-key

An address comes from here alone, never from a model, a request or the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from inference.precision import DIGEST_BEGINNING


@dataclass(frozen=True)
class VllmChoice:
    servers: Mapping[str, str] = field(default_factory=dict)  # beginning of a base's digest -> URL
    key: str = field(default="", repr=False)

    @classmethod
    def read(cls, said: str, *, key: str = "") -> VllmChoice:
        """Raises ValueError that says what is wrong with it."""
        servers = {}
        for word in said.replace(",", " ").split():
            base, _, url = word.partition("=")
            if not DIGEST_BEGINNING.fullmatch(base):
                raise ValueError(f"{word!r}: a base is named by the beginning of its digest, at least 6 of its characters, before a =")
            _check(url)
            servers[base] = url.rstrip("/")
        return cls(servers, key)

    def of(self, base: str) -> dict[str, Any] | None:
        """Options of VllmOptions for a base, by its digest; None for one that this worker's own core answers."""
        url = next((url for beginning, url in self.servers.items() if base.startswith(beginning)), None)
        return None if url is None else {"url": url, "key": self.key}


def _check(url: str) -> None:
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and parts.hostname and not (parts.query or parts.fragment or parts.username)
        fits = fits and parts.port != 0
    except ValueError:  # a port that is no number
        fits = False
    if not fits:
        raise ValueError(f"{url!r} is no address of a server, such as http://127.0.0.1:8100")
