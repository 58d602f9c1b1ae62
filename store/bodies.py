"""Caps request bodies in size and time in front of Django, which spools a whole body before any middleware runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from django.conf import settings

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

READ_TIMEOUT_S = 30.0  # between two pieces of a body
UPLOAD_PATHS = ("/studio/", "/batches/new/", "/v1/files")  # training files and requests of batches; all else is small


class _TooLarge(Exception):
    pass


class _TooSlow(Exception):
    pass


class BodyCap:
    """ASGI wrapper: 413 above the path's limit, 408 when a body stops coming."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"]
        limit = settings.MAX_UPLOAD_BYTES + 65_536 if any(part in path for part in UPLOAD_PATHS) else settings.MAX_BODY_BYTES
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > limit:
            await _refuse(send, 413, f"The request body is larger than the {limit} bytes allowed here.")
            return
        received, ended, answered = 0, False, False

        async def capped_receive() -> MutableMapping[str, Any]:
            nonlocal received, ended
            if ended:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), READ_TIMEOUT_S)
            except TimeoutError:
                raise _TooSlow from None
            received += len(message.get("body", b""))
            ended = not message.get("more_body", False)
            if received > limit:
                raise _TooLarge
            return message

        async def watched_send(message: MutableMapping[str, Any]) -> None:
            nonlocal answered
            answered = True
            await send(message)

        try:
            await self.app(scope, capped_receive, watched_send)
        except _TooLarge:
            if not answered:
                await _refuse(send, 413, f"The request body is larger than the {limit} bytes allowed here.")
        except _TooSlow:
            if not answered:
                await _refuse(send, 408, "The request body did not arrive in time. Send it again.")


async def _refuse(send: Send, status: int, message: str) -> None:
    body = json.dumps({"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
