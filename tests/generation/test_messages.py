"""What a model is given to read, where functions are called."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference import tool_prompts
from store.generation import messages
from tests import making

NAMES = st.sampled_from(["now", "weather_in_town", "f" * 64])
TEXTS = st.text(max_size=30)
VALUES = st.recursive(st.none() | st.integers() | TEXTS, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner), max_leaves=10)
OBJECTS = st.dictionaries(TEXTS, VALUES, max_size=5)


def called(name: str, arguments: dict[str, Any]) -> list[dict[str, Any]]:
    """A question, a call, and what it returned."""
    call = {"id": "call_1", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
    return [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "…"},
    ]


def described(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "description": "Tells it: 现在几点。", "parameters": {"properties": schema}}}


@given(called_name=NAMES, arguments=OBJECTS, name=NAMES, schema=OBJECTS)
def test_no_way_to_write_functions_and_calls_is_longer_than_what_is_reckoned_with(
    called_name: str, arguments: dict[str, Any], name: str, schema: dict[str, Any]
) -> None:
    conversation, tools = called(called_name, arguments), [described(name, schema)]

    bound = messages.most_tokens_read(conversation, tools)

    told, _ = tool_prompts.in_words(conversation, tools)
    in_words = sum(len(message["content"].encode()) + len(message["role"]) for message in told)
    spread, _ = tool_prompts.for_template(conversation, tools)
    by_a_template = sum(len(message["content"].encode()) + len(json.dumps(message.get("tool_calls", ""), indent=4)) for message in spread)
    assert bound >= in_words
    assert bound >= by_a_template + sum(len(json.dumps(tool, indent=4)) for tool in tools)


@pytest.mark.django_db
def test_a_prompt_costs_no_more_than_the_context_holds() -> None:
    base = making.make_base()
    base.facts = {**base.facts, "context_length": 100}

    assert messages.most_prompt_tokens(base, [{"role": "user", "content": "a" * 10}]) == 90
    assert messages.most_prompt_tokens(base, [{"role": "user", "content": "a" * 1000}]) == 100
