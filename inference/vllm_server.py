"""The part of vLLM's HTTP protocol that an engine needs: /health, /v1/models, /v1/completions as a stream, and LoRA adapters.

Fields are those of vLLM 0.32 (`vllm/entrypoints/openai/completion/protocol.py`, `vllm/entrypoints/serve/lora/protocol.py`).
Every exchange has a connection of its own, which another thread may close: on that vLLM ends the request.
"""

from __future__ import annotations

import http.client
import json
import math
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import structlog

from inference.protocol import FailureCode
from inference.reading import TokenLogprob

log = structlog.get_logger(__name__)

CONNECT_WITHIN_S = 10.0
ANSWER_WITHIN_S = 10.0
LOAD_WITHIN_S = 120.0  # an adapter
MAX_LINE_BYTES = 4 * 2**20  # of a stream: a chunk with 20 log-probabilities for each of its tokens is far smaller
MAX_BODY_BYTES = 4 * 2**20
TOKEN_MARK = "token_id:"  # before a token's number where log-probabilities name tokens by number
MAX_TOKEN = 2**31


class VllmFailed(Exception):
    """The server did not do what it was asked. `status` is the HTTP status, 0 when there was none."""

    def __init__(self, code: FailureCode, message: str, *, status: int = 0, detail: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.detail = dict(detail or {})


@dataclass(frozen=True)
class Piece:
    """What a choice goes on with."""

    choice: int
    tokens: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] = ()  # of the tokens, where they were asked for
    reason: str | None = None  # why the choice ends here: vLLM's finish_reason


@dataclass(frozen=True)
class Chunk:
    """One event of a stream."""

    pieces: tuple[Piece, ...]
    cached_tokens: int | None = None  # of the prompt, where the server tells


@dataclass(frozen=True)
class Served:
    """What a server says of itself."""

    model: str  # name of the base
    context_length: int
    adapters: frozenset[str]  # names


class VllmServer:
    def __init__(self, url: str, *, key: str = "") -> None:
        parts = urlsplit(url)
        self.url = url
        self._encrypted = parts.scheme == "https"
        self._host, self._port = parts.hostname or "", parts.port
        self._root = quote(parts.path.rstrip("/"))
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})

    # ------------------------------------------------------------ questions with one answer; all raise VllmFailed

    def healthy(self) -> bool:
        try:
            self._ask("GET", "/health")
        except VllmFailed:
            return False
        return True

    def served(self) -> Served:
        raw = self._ask("GET", "/v1/models")
        try:
            cards = json.loads(raw)["data"]
            base = next(card for card in cards if card.get("parent") is None)
            adapters = frozenset(str(card["id"]) for card in cards if card.get("parent") is not None)
            return Served(str(base["id"]), int(base["max_model_len"]), adapters)
        except (ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
            raise _confused(f"/v1/models: {type(error).__name__}: {error}") from error

    def load_adapter(self, name: str, folder: str) -> None:
        """The server reads the folder itself. One that it has already is left as it is."""
        try:
            self._ask("POST", "/v1/load_lora_adapter", {"lora_name": name, "lora_path": folder}, within_s=LOAD_WITHIN_S)
        except VllmFailed as error:
            if error.status == 400 and "already been loaded" in str(error):
                return
            if not error.status:
                raise
            log.warning("adapter not loaded", adapter=name, url=self.url, error=str(error))
            why = f"The vLLM server cannot load the adapter (status {error.status})."
            raise VllmFailed(FailureCode.ADAPTER_UNAVAILABLE, why) from error

    def unload_adapter(self, name: str) -> None:
        self._ask("POST", "/v1/unload_lora_adapter", {"lora_name": name})

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None, *, within_s: float = ANSWER_WITHIN_S) -> bytes:
        connection = self.connection(timeout_s=within_s)
        try:
            self.send(connection, method, path, body)
            return self.accepted(connection.getresponse()).read(MAX_BODY_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise self.gone(error) from error
        finally:
            connection.close()

    # ------------------------------------------------------------ parts of an exchange

    def connection(self, *, timeout_s: float) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._encrypted else http.client.HTTPConnection
        return kind(self._host, self._port, timeout=timeout_s)

    def send(self, connection: http.client.HTTPConnection, method: str, path: str, body: Mapping[str, Any] | None) -> None:
        raw = None if body is None else json.dumps(body)
        connection.request(method, self._root + path, body=raw, headers={**self._headers, "Connection": "close"})

    def accepted(self, response: http.client.HTTPResponse) -> http.client.HTTPResponse:
        if response.status == 200:
            return response
        raise _refusal(response.status, response.read(MAX_BODY_BYTES))

    def gone(self, error: Exception) -> VllmFailed:
        """Its message may reach people who need not know the address."""
        log.warning("vLLM server does not answer", url=self.url, error=repr(error))
        return VllmFailed(FailureCode.ENGINE_DIED, f"The vLLM server does not answer ({type(error).__name__}).")


class Completion:
    """One streamed answer. Iterated by one thread; any may close it."""

    def __init__(self, server: VllmServer) -> None:
        self._server = server
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self.closed = False

    def chunks(self, body: Mapping[str, Any]) -> Iterator[Chunk]:
        """Raises VllmFailed; ends early, without a word, when it was closed."""
        connection = self._server.connection(timeout_s=CONNECT_WITHIN_S)
        try:
            connection.connect()
            with self._lock:
                if self.closed:
                    return
                self._socket = connection.sock
            connection.sock.settimeout(None)  # the engine watches the deadline, and closes this
            self._server.send(connection, "POST", "/v1/completions", body)
            yield from _events(self._server.accepted(connection.getresponse()))
        except (OSError, http.client.HTTPException, ValueError) as error:
            if not self.closed:
                raise self._server.gone(error) from error
        finally:
            with self._lock:
                self._socket = None
            connection.close()

    def close(self) -> None:
        with self._lock:
            self.closed = True
            if self._socket is not None:
                with suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)


def _events(response: http.client.HTTPResponse) -> Iterator[Chunk]:
    while line := response.readline(MAX_LINE_BYTES):
        if not line.endswith(b"\n"):
            raise http.client.HTTPException("its stream broke off in a line, or the line is too long")
        word, _, said = line.strip().partition(b":")
        if word != b"data":
            continue
        if said.strip() == b"[DONE]":
            return
        yield _chunk(said)
    raise http.client.HTTPException("its stream broke off")


def _chunk(raw: bytes) -> Chunk:
    try:
        said = json.loads(raw)
        if "error" in said:
            raise VllmFailed(FailureCode.INTERNAL, f"The vLLM server failed: {str(said['error'].get('message'))[:500]}")
        details = (said.get("usage") or {}).get("prompt_tokens_details") or {}
        return Chunk(tuple(_piece(choice) for choice in said["choices"]), details.get("cached_tokens"))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise _confused(f"{type(error).__name__}: {error}") from error


def _piece(choice: Mapping[str, Any]) -> Piece:
    tokens = tuple(_token(token) for token in choice["token_ids"])
    logprobs: tuple[TokenLogprob, ...] = ()
    if (told := choice.get("logprobs")) is not None:
        logprobs = tuple(
            TokenLogprob(_named(token), _logprob(own), tuple((_named(other), _logprob(share)) for other, share in (top or {}).items()))
            for token, own, top in zip(told["tokens"], told["token_logprobs"], told["top_logprobs"], strict=True)
        )
        if len(logprobs) != len(tokens):
            raise ValueError(f"{len(logprobs)} log-probabilities for {len(tokens)} tokens")
    return Piece(choice["index"], tokens, logprobs, choice.get("finish_reason"))


def _token(number: Any) -> int:
    if type(number) is not int or not 0 <= number < MAX_TOKEN:
        raise ValueError(f"{number!r} is no token")
    return number


def _named(name: str) -> int:
    return _token(int(name.removeprefix(TOKEN_MARK)))


def _logprob(value: Any) -> float:
    if not math.isfinite(found := float(value)):
        raise ValueError(f"{value!r} is no log-probability")
    return found


def _confused(what: str) -> VllmFailed:
    return VllmFailed(FailureCode.INTERNAL, f"The vLLM server answered in a way that is not understood, {what[:500]}")


def _refusal(status: int, raw: bytes) -> VllmFailed:
    """vLLM says {"error": {"message", "type", "param", "code"}}."""
    message, param = raw.decode(errors="replace")[:500], None
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        error = json.loads(raw)["error"]
        message, param = str(error["message"])[:500], error.get("param")
    text = f"The vLLM server refused with status {status}: {message}"
    if status in (429, 503):
        return VllmFailed(FailureCode.OVERLOADED, text, status=status)
    if status == 400 and isinstance(param, str):
        return VllmFailed(FailureCode.INVALID_PARAMETER, text, status=status, detail={"param": param})
    return VllmFailed(FailureCode.BASE_UNAVAILABLE if status in (401, 404) else FailureCode.INTERNAL, text, status=status)
