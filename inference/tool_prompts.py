"""How a prompt tells of tools: by the model's own template where that has the form of `tool_calls`, else in words.

A template of another form, such as one that wants calls as bare JSON, would show a model what a rule then keeps it from: such a
model is told in words too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from inference import tool_calls

Messages = list[dict[str, Any]]
Tools = Sequence[Mapping[str, Any]] | None

WORDS = """You may call functions. Their signatures stand between <tools> and </tools>:
<tools>
{tools}
</tools>

To call one, answer with its name and its arguments as JSON in this form:
<tool_call>
{{"name": "<function-name>", "arguments": <arguments>}}
</tool_call>

What a function returned comes between <tool_response> and </tool_response>."""
PROBE, PROBED = "probe_a_tool", '{"probed": 1}'


def is_of_calls(message: Mapping[str, Any]) -> bool:
    return message["role"] == "tool" or "tool_calls" in message


def in_words(messages: Sequence[Mapping[str, Any]], tools: Tools) -> tuple[Messages, None]:
    """The conversation for a template that knows of no tools: of nothing but roles and texts."""
    told: Messages = []
    for message in messages:
        if message["role"] != "tool":
            told.append({"role": message["role"], "content": _with_calls(message)})
            continue
        result = f"<tool_response>\n{message['content']}\n</tool_response>"
        if told and told[-1].get("results"):
            told[-1]["content"] += f"\n{result}"
        else:
            told.append({"role": "user", "content": result, "results": True})
    if tools:
        words = WORDS.format(tools="\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools))
        if told[0]["role"] == "system":
            told[0]["content"] += f"\n\n{words}"
        else:
            told.insert(0, {"role": "system", "content": words})
    return [{"role": message["role"], "content": message["content"]} for message in told], None


def for_template(messages: Sequence[Mapping[str, Any]], tools: Tools) -> tuple[Messages, Tools]:
    """The conversation for a template that knows of tools: with the arguments of calls as objects, not as texts."""
    return [{**message, **_with_objects(message)} for message in messages], tools


def is_told_by(render: Callable[[Messages, Tools], str]) -> bool:
    """Whether a template tells of a tool, and of a call in the form of `tool_calls`."""
    tool = {"type": "function", "function": {"name": PROBE, "description": PROBE, "parameters": {"type": "object", "properties": {}}}}
    call = {"id": "call_1", "type": "function", "function": {"name": PROBE, "arguments": PROBED}}
    asked = {"role": "user", "content": "Probe."}
    called, _ = for_template([asked, {"role": "assistant", "content": "", "tool_calls": [call]}], None)
    return PROBE in render([asked], [tool]) and tool_calls.in_words(PROBE, PROBED) in render(called, None)


def _with_calls(message: Mapping[str, Any]) -> str:
    calls = (call["function"] for call in message.get("tool_calls", ()))
    parts = [message["content"], *(tool_calls.in_words(call["name"], call["arguments"]) for call in calls)]
    return "\n".join(part for part in parts if part)


def _with_objects(message: Mapping[str, Any]) -> dict[str, Any]:
    if "tool_calls" not in message:
        return {}
    calls = [call["function"] for call in message["tool_calls"]]
    objects = [{"name": call["name"], "arguments": json.loads(call["arguments"])} for call in calls]
    return {"tool_calls": [{**call, "function": function} for call, function in zip(message["tool_calls"], objects, strict=True)]}
