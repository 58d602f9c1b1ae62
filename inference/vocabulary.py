"""What each token of a tokenizer stands for, in bytes: a token may be half a character, which no text can say.

Byte-level tokenizers write each byte as a printable character (GPT-2's table); those with byte fallback write spaces as ▁ and bytes
that are no character of theirs as <0xNN>.
"""

from __future__ import annotations

import json
import re
from functools import cache
from typing import TYPE_CHECKING, Any

import tokenizers

if TYPE_CHECKING:  # it loads torch, which a process that only renders does not need
    from inference.reading import TokenLogprob

IMPOSSIBLE = -9999.0  # OpenAI's word for a probability of zero: JSON knows no infinity
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


class Vocabulary:
    def __init__(self, tokens: tokenizers.Tokenizer) -> None:
        self._tokens = tokens
        self._added = {token: added.content for token, added in tokens.get_added_tokens_decoder().items()}
        decoder = json.loads(tokens.to_str()).get("decoder") or {}
        kinds = {part.get("type") for part in _parts(decoder)}
        self._is_byte_level = "ByteLevel" in kinds
        self._has_fallback = "ByteFallback" in kinds

    def bytes_of(self, token: int) -> bytes:
        """Empty for a number that is no token."""
        if token in self._added:
            return self._added[token].encode()
        piece = self._tokens.id_to_token(token)
        if piece is None:
            return b""
        if self._is_byte_level:
            table = byte_of_character()
            return bytes(table[character] for character in piece) if all(c in table for c in piece) else piece.encode()
        if self._has_fallback and (found := _BYTE.fullmatch(piece)):
            return bytes([int(found[1], 16)])
        return piece.replace("▁", " ").encode()

    def text_of(self, token: int) -> str:
        """Bytes that are no character become U+FFFD."""
        return self.bytes_of(token).decode(errors="replace")

    def in_words(self, found: TokenLogprob) -> dict[str, Any]:
        """As OpenAI's protocol has it: {"token", "logprob", "bytes", "top_logprobs"}."""
        top = [self._share(token, logprob) for token, logprob in found.top]
        return self._share(found.token, found.logprob) | {"top_logprobs": top}

    def _share(self, token: int, logprob: float) -> dict[str, Any]:
        return {"token": self.text_of(token), "logprob": max(logprob, IMPOSSIBLE), "bytes": list(self.bytes_of(token))}


def _parts(decoder: dict[str, Any]) -> list[dict[str, Any]]:
    return [decoder, *(part for inner in decoder.get("decoders", []) for part in _parts(inner))]


@cache
def byte_of_character() -> dict[str, int]:
    """GPT-2's table: printable Latin-1 characters stand for themselves, the other bytes for those from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + at): byte for at, byte in enumerate(others)}
