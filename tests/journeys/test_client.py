"""A developer with the official client, on the real model."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from store.accounts.keys import create_key
from store.generation.models import Request
from tests.making import make_user
from tests.stack import Stack, wait_until

pytestmark = [pytest.mark.stack, pytest.mark.real_model]
BASE = "smollm2-135m-instruct"
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture
def client(stack: Stack) -> openai.OpenAI:
    _, secret = create_key(make_user(), name="test")
    return openai.OpenAI(base_url=f"{stack.url}/v1", api_key=secret, max_retries=0, timeout=120)


def base_of(client: openai.OpenAI) -> str:
    return next(model.id for model in client.models.list() if model.id.endswith(f"/{BASE}"))


def test_an_answer_in_one_piece_with_its_usage(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=base_of(client), messages=QUESTION, temperature=0, max_tokens=16)

    assert answer.choices[0].message.content == "The capital of France is Paris."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (37, 8)
    row = wait_until(lambda: Request.objects.filter(public_id=answer.id.removeprefix("chatcmpl-"), state="finished").first())
    assert (row.prompt_tokens, row.completion_tokens) == (37, 8)


def test_a_stream_says_the_same_in_pieces_and_ends_with_usage(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model=base_of(client), messages=QUESTION, temperature=0, max_tokens=16, stream=True, stream_options={"include_usage": True}
    )

    chunks = list(stream)

    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert len(pieces) > 1
    assert "".join(pieces) == "The capital of France is Paris."
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 8


def test_a_seed_gives_the_same_text_again(client: openai.OpenAI) -> None:
    asked = {"model": base_of(client), "messages": QUESTION, "temperature": 1.0, "seed": 7, "max_tokens": 24}

    first, second = (client.chat.completions.create(**asked).choices[0].message.content for _ in range(2))

    assert first == second


def test_a_client_that_hangs_up_stops_the_engine(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model=base_of(client), messages=[{"role": "user", "content": "Tell me a very long story."}], max_tokens=1500, stream=True
    )
    first = next(iter(stream))

    stream.close()

    request = first.id.removeprefix("chatcmpl-")
    row = wait_until(lambda: Request.objects.filter(public_id=request).exclude(state="admitted").first())
    assert (row.state, row.finish_reason) == ("cancelled", "cancelled")
    assert row.completion_tokens < 1500


PLACE = {"type": "object", "properties": {"town": {"type": "string", "maxLength": 30}, "unit": {"enum": ["celsius", "fahrenheit"]}}}
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells the weather of a town.",
        "parameters": {**PLACE, "required": ["town", "unit"], "additionalProperties": False},
    },
}


def test_a_function_is_called_with_what_was_asked_and_its_result_answered_from(client: openai.OpenAI) -> None:
    asked: Any = {"model": base_of(client), "tools": [WEATHER], "temperature": 0, "max_tokens": 80}
    question: Any = {"role": "user", "content": "How warm is it in Tokyo, in celsius?"}

    with client.chat.completions.stream(messages=[question], tool_choice="required", **asked) as stream:
        choice = stream.get_final_completion().choices[0]
    (call,) = choice.message.tool_calls or []
    result: Any = {"role": "tool", "tool_call_id": call.id, "content": '{"temperature": 31, "sky": "clear"}'}
    answer = client.chat.completions.create(messages=[question, choice.message, result], **asked).choices[0]

    assert choice.finish_reason == "tool_calls"
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"town": "Tokyo", "unit": "celsius"})
    assert "31" in (answer.message.content or "")


@pytest.mark.parametrize(
    ("asked", "error", "code"),
    [
        ({"model": "nobody/nothing"}, openai.NotFoundError, "model_not_found"),
        ({"messages": [{"role": "user", "content": "\x07"}]}, openai.BadRequestError, "invalid_messages"),
        ({"messages": [{"role": "user", "content": ""}]}, openai.BadRequestError, None),
    ],
)
def test_bad_input_gets_the_error_its_client_knows(client: openai.OpenAI, asked: dict, error: type, code: str | None) -> None:
    with pytest.raises(error) as raised:
        client.chat.completions.create(**{"model": base_of(client), "messages": QUESTION} | asked)

    assert code is None or raised.value.code == code
    assert raised.value.request_id
