"""A small stand-in for `vllm serve`, with the part of its protocol that the engine uses, after vLLM 0.32's own protocol.py files.

It answers with the tokens that a test gives it and refuses what vLLM refuses. One thing is stricter: a field that vLLM does not know
is refused, where vLLM ignores it, so that a misspelt one is noticed.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from inference.reading import TokenLogprob

MODEL = "served-base"
KEY = "key-of-the-server"
NUMBER = (int, float)
FIELDS: dict[str, Any] = {
    "model": str,
    "prompt": list,
    "add_special_tokens": bool,
    "stream": bool,
    "stream_options": dict,
    "return_token_ids": bool,
    "return_tokens_as_token_ids": bool,
    "max_tokens": int,
    "min_tokens": int,
    "temperature": NUMBER,
    "top_p": NUMBER,
    "top_k": int,
    "min_p": NUMBER,
    "presence_penalty": NUMBER,
    "frequency_penalty": NUMBER,
    "repetition_penalty": NUMBER,
    "ignore_eos": bool,
    "stop": list,
    "stop_token_ids": list,
    "n": int,
    "seed": int,
    "logit_bias": dict,
    "logprobs": int,
    "cache_salt": str,
}


@dataclass
class Script:
    """What the server answers with, choice by choice."""

    tokens: list[list[Any]]  # None for a token: told as text alone
    logprobs: list[list[TokenLogprob]] = field(default_factory=list)
    reason: str | None = "stop"  # of the last token of each choice
    cached_tokens: int | None = None
    hold_after: int | None = None  # tokens; then it waits until the other side closes the connection
    break_after: int | None = None  # tokens; then it is gone
    refusal: tuple[int, dict[str, Any]] | None = None  # status and error
    fails_with: str | None = None  # an error in the stream, behind the tokens


class VllmFake:
    """`bodies` are the completions asked for, `calls` what was done about adapters, `left` the requests whose connection was closed."""

    def __init__(self, script: Script, *, port: int = 0, context_length: int = 2048) -> None:
        self.script = script
        self.context_length = context_length
        self.adapters: dict[str, str] = {}
        self.bodies: list[dict[str, Any]] = []
        self.calls: list[tuple[str, str]] = []
        self.left: list[str] = []
        self.may_load = threading.Event()
        self.may_load.set()
        self.lock = threading.Lock()
        handler = type("Bound", (_Handler,), {"fake": self})
        self._http = _Server(("127.0.0.1", port), handler)
        self.port = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def models(self) -> list[dict[str, Any]]:
        base: dict[str, Any] = {"id": MODEL, "object": "model", "owned_by": "vllm", "root": "/models/base", "parent": None}
        base |= {"max_model_len": self.context_length}
        adapters = [{"id": name, "object": "model", "root": path, "parent": MODEL} for name, path in self.adapters.items()]
        return [base, *(adapter | {"max_model_len": None} for adapter in adapters)]


@contextmanager
def vllm_fake(script: Script, **options: Any) -> Iterator[VllmFake]:
    fake = VllmFake(script, **options)
    try:
        yield fake
    finally:
        fake.stop()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # the other side may leave whenever it likes
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    fake: VllmFake
    protocol_version = "HTTP/1.1"
    timeout = 60

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/health":
            self._answer(200, b"")
        elif self.headers["Authorization"] != f"Bearer {KEY}":
            self._answer(401, b'{"error": "Unauthorized"}')
        else:
            assert self.path == "/v1/models"
            self._answer(200, json.dumps({"object": "list", "data": self.fake.models()}).encode())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["Authorization"] != f"Bearer {KEY}":
            return self._answer(401, b'{"error": "Unauthorized"}')
        assert self.headers["Content-Type"] == "application/json"
        match self.path:
            case "/v1/completions":
                self._complete(body)
            case "/v1/load_lora_adapter":
                self._load(body)
            case "/v1/unload_lora_adapter":
                self._unload(body)
            case _:
                self._answer(404, b'{"detail":"Not Found"}')

    # ------------------------------------------------------------ adapters

    def _load(self, body: dict[str, Any]) -> None:
        assert set(body) == {"lora_name", "lora_path"}
        name, folder = body["lora_name"], Path(body["lora_path"])
        assert self.fake.may_load.wait(60)
        with self.fake.lock:
            if name in self.fake.adapters:
                return self._refuse(400, f"The lora adapter '{name}' has already been loaded.", "InvalidUserInput")
            if not (folder / "adapter_config.json").is_file():
                return self._refuse(404, f"No adapter found for {folder}", "NotFoundError")
            self.fake.calls.append(("load", name))
            self.fake.adapters[name] = str(folder)
        self._answer(200, f"Success: LoRA adapter '{name}' added successfully.".encode())

    def _unload(self, body: dict[str, Any]) -> None:
        assert set(body) == {"lora_name"}
        with self.fake.lock:
            if body["lora_name"] not in self.fake.adapters:
                return self._refuse(404, f"The lora adapter '{body['lora_name']}' cannot be found.", "NotFoundError")
            self.fake.calls.append(("unload", body["lora_name"]))
            del self.fake.adapters[body["lora_name"]]
        self._answer(200, b"Success")

    # ------------------------------------------------------------ completions

    def _complete(self, body: dict[str, Any]) -> None:
        fake, script = self.fake, self.fake.script
        fake.bodies.append(body)
        if wrong := _wrong_with(body):
            return self._refuse(400, *wrong)
        if body["model"] != MODEL and body["model"] not in fake.adapters:
            return self._refuse(404, f"The model `{body['model']}` does not exist.", "NotFoundError", "model")
        if script.refusal is not None:
            status, error = script.refusal
            return self._answer(status, json.dumps({"error": error}).encode())
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        sent = [0] * body["n"]
        for at in range(max(map(len, script.tokens))):
            if at == script.break_after:
                self.close_connection = True
                return None
            if at == script.hold_after:
                return self._wait_until_left(body)
            for number, tokens in enumerate(script.tokens[: body["n"]]):
                if at < len(tokens):
                    self._event({"id": "cmpl-1", "object": "text_completion", "choices": [self._choice(body, number, at)]})
                    sent[number] += 1
        if script.fails_with is not None:
            self._event({"error": {"message": script.fails_with, "type": "InternalServerError", "param": None, "code": 500}})
        usage: dict[str, Any] = {"prompt_tokens": len(body["prompt"]), "completion_tokens": sum(sent)}
        if script.cached_tokens is not None:
            usage |= {"prompt_tokens_details": {"cached_tokens": script.cached_tokens}}
        self._event({"id": "cmpl-1", "object": "text_completion", "choices": [], "usage": usage})
        self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")
        return None

    def _choice(self, body: dict[str, Any], number: int, at: int) -> dict[str, Any]:
        tokens = self.fake.script.tokens[number]
        last = at == len(tokens) - 1
        choice: dict[str, Any] = {"index": number, "text": "?", "logprobs": None}
        choice |= {} if tokens[at] is None else {"token_ids": [tokens[at]]}
        choice |= {"finish_reason": self.fake.script.reason if last else None, "stop_reason": None}
        if "logprobs" in body:
            found = self.fake.script.logprobs[number][at]
            top = {f"token_id:{found.token}": found.logprob} | {f"token_id:{token}": share for token, share in found.top}
            choice["logprobs"] = {
                "text_offset": [0],
                "tokens": [f"token_id:{found.token}"],
                "token_logprobs": [found.logprob],
                "top_logprobs": [top],
            }
        return choice

    def _wait_until_left(self, body: dict[str, Any]) -> None:
        self.close_connection = True
        if self.connection.recv(1) == b"":
            self.fake.left.append(body["model"])

    # ------------------------------------------------------------ wire

    def _event(self, value: dict[str, Any]) -> None:
        self._chunk(b"data: " + json.dumps(value).encode() + b"\n\n")

    def _chunk(self, raw: bytes) -> None:
        self.wfile.write(f"{len(raw):x}\r\n".encode() + raw + b"\r\n")
        self.wfile.flush()

    def _refuse(self, status: int, message: str, kind: str, param: str | None = None) -> None:
        self._answer(status, json.dumps({"error": {"message": message, "type": kind, "param": param, "code": status}}).encode())

    def _answer(self, status: int, raw: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


def _wrong_with(body: dict[str, Any]) -> tuple[str, str, str] | None:
    """Message, kind and parameter of vLLM's refusal."""
    for name, value in body.items():
        kind = FIELDS.get(name)
        if kind is None or not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            return f"{name}: {value!r}", "BadRequestError", name
    checks = {
        "temperature": 0 <= body["temperature"] <= 2,
        "top_p": 0 < body["top_p"] <= 1,
        "min_tokens": 0 <= body["min_tokens"] <= body["max_tokens"],
        "n": body["n"] == 1 or body["temperature"] >= 1e-5,
        "stop": all(isinstance(stop, str) and stop for stop in body["stop"]),
        "stop_token_ids": all(type(token) is int for token in body["stop_token_ids"]),
        "prompt": body["prompt"] and all(type(token) is int and token >= 0 for token in body["prompt"]),
        "logit_bias": all(key.isdigit() for key in body.get("logit_bias", {})),
        "logprobs": 0 <= body.get("logprobs", 0) <= 20,
        "cache_salt": 0 < len(body["cache_salt"]) <= 1024,
        "stream_options": body["stream_options"] == {"include_usage": True},
    }
    return next(((f"{name} is wrong: {body.get(name)!r}", "BadRequestError", name) for name, fits in checks.items() if not fits), None)
