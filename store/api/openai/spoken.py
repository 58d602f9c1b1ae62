"""What one choice of an answer says: its text, and the functions it calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from inference.protocol import FinishReason
from inference.tool_calls import CallReader, Said
from store.api.openai.tools import Tools

CALLS = "tool_calls"  # why an answer ended that calls functions


class Spoken:
    """Hears the events of a choice. `hear` and `end` return what each adds, as a stream's delta; {} for nothing."""

    def __init__(self, request: str, number: int, tools: Tools | None = None) -> None:
        """request: public id. tools: what the answer may call."""
        self.number = number
        self.text = ""
        self.calls: list[dict[str, Any]] = []
        self.logprobs: list[dict[str, Any]] | None = None
        self.finish_reason: str | None = None
        self._call_id = f"call_{request.removeprefix('req_')}_{number}"
        self._tools = tools
        self._reader = CallReader()

    def hear(self, piece: Mapping[str, Any]) -> dict[str, Any]:
        if found := piece.get("logprobs"):
            self.logprobs = [*(self.logprobs or []), *found]
        text, reason = piece["text"], piece.get("reason")
        said = self._reader.push(text) if self._tools else [Said(text)]
        return self._added([*said, *(self._ended(reason) if reason else ())])

    def end(self, reason: str) -> dict[str, Any]:
        """For a choice that goes on to the end of its request; else nothing happens."""
        return self._added(self._ended(reason)) if self.finish_reason is None else {}

    def message(self) -> dict[str, Any]:
        message = {"role": "assistant", "content": self.text or (None if self.calls else ""), "refusal": None}
        return message | ({"tool_calls": self.calls} if self.calls else {})

    def _ended(self, reason: str) -> list[Said]:
        held = self._reader.end()
        calls = reason == FinishReason.STOP and self._reader.ends_with_a_call and self._tools and not self._tools.is_one
        self.finish_reason = CALLS if calls else reason
        return held

    def _added(self, said: Iterable[Said]) -> dict[str, Any]:
        text, calls = "", {}
        for piece in said:
            if piece.call is None:
                text += piece.text
                continue
            if piece.name:
                function = {"name": piece.name, "arguments": ""}
                self.calls.append({"id": f"{self._call_id}_{piece.call}", "type": "function", "function": function})
                calls[piece.call] = {"index": piece.call, **self.calls[-1], "function": {**function}}
            told = calls.setdefault(piece.call, {"index": piece.call, "function": {"arguments": ""}})
            for function in (told["function"], self.calls[piece.call]["function"]):
                function["arguments"] += piece.text
        self.text += text
        return ({"content": text} if text else {}) | ({"tool_calls": list(calls.values())} if calls else {})
