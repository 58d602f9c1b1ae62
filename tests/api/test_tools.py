"""Calls of functions with the official client, unmodified, against the real application; only the engine behind it follows a script."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference import protocol
from inference.sampling_params import Form, Grammar
from inference.tool_calls import Wanted, in_words
from store.api.openai.spoken import Spoken
from store.api.openai.tools import Tools
from tests import making
from tests.api.conftest import Caller
from tests.api.engine import ScriptedEngine, fails, says, says_choices

WEATHER = {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]}
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": "weather", "description": "Tells the weather.", "parameters": WEATHER, "strict": True}},
    {"type": "function", "function": {"name": "now"}},
]
TOLD = [
    {"type": "function", "function": {"name": "weather", "description": "Tells the weather.", "parameters": WEATHER}},
    {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}},
]
FUNCTIONS = {
    "weather": {"additionalProperties": False, **WEATHER},
    "now": {"additionalProperties": False, "type": "object", "properties": {}},
}
ASKED: list[Any] = [{"role": "user", "content": "Weather in Ulm and Bonn?"}]
ULM, BONN = (in_words("weather", json.dumps({"town": town})) for town in ("Ulm", "Bonn"))
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"town": "Ulm"}'}}

database = pytest.mark.django_db(transaction=True)


@pytest.fixture
def model() -> str:
    version = making.make_prompt(making.make_base(slug="base"), making.make_listing(making.make_publisher(slug="acme"), slug="poet"))
    return version.listing.full_name


@pytest.fixture
def client(address: str, caller: Caller) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{address}/v1", api_key=caller.secret, max_retries=0, timeout=30)


def called(message: Any) -> list[tuple[str, str]]:
    return [(call.function.name, call.function.arguments) for call in message.tool_calls or []]


# ---------------------------------------------------------------- what goes to the model


@database
@pytest.mark.parametrize(
    ("asked", "functions", "required", "several"),
    [
        ({}, ["weather", "now"], False, True),
        ({"tool_choice": "auto", "parallel_tool_calls": False}, ["weather", "now"], False, False),
        ({"tool_choice": "required"}, ["weather", "now"], True, False),
        ({"tool_choice": "required", "parallel_tool_calls": True}, ["weather", "now"], True, True),
        ({"tool_choice": {"type": "function", "function": {"name": "now"}}, "parallel_tool_calls": True}, ["now"], True, False),
        (
            {
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "now"}}]},
                }
            },
            ["now"],
            False,
            True,
        ),
    ],
    ids=str,
)
def test_the_model_is_told_of_the_functions_and_held_to_those_that_may_be_called(
    client: openai.OpenAI,
    engine: ScriptedEngine,
    model: str,
    asked: dict[str, Any],
    functions: list[str],
    required: bool,
    several: bool,
) -> None:
    client.chat.completions.create(model=model, messages=ASKED, tools=TOOLS, **asked)

    (order,) = engine.orders
    assert order.tools == TOLD
    assert order.sampling["grammar"]["kind"] == "tools"
    rule = json.loads(order.sampling["grammar"]["value"])
    assert rule == {"functions": {name: FUNCTIONS[name] for name in functions}, "required": required, "several": several}


@database
@pytest.mark.parametrize("asked", [{"tools": TOOLS, "tool_choice": "none"}, {"tools": []}, {"tools": [], "tool_choice": "auto"}], ids=str)
def test_where_nothing_may_be_called_the_model_is_told_of_nothing(
    client: openai.OpenAI, engine: ScriptedEngine, model: str, asked: dict[str, Any]
) -> None:
    engine.script = says("<tool_call> is a mark.")

    answer = client.chat.completions.create(model=model, messages=ASKED, **asked)

    assert (engine.orders[0].tools, engine.orders[0].sampling["grammar"]) == (None, None)
    assert answer.choices[0].message.content == "<tool_call> is a mark."


@database
def test_calls_and_what_they_returned_are_read_again(client: openai.OpenAI, engine: ScriptedEngine, model: str) -> None:
    result = {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "Rain."}]}
    conversation: list[Any] = [*ASKED, {"role": "assistant", "content": None, "tool_calls": [CALL]}, result]

    client.chat.completions.create(model=model, messages=conversation, tools=TOOLS)

    assert engine.orders[0].messages[1:] == [
        *ASKED,
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": "Rain."},
    ]


@database
def test_an_answer_can_go_straight_into_the_next_request(client: openai.OpenAI, engine: ScriptedEngine, model: str) -> None:
    engine.script = says(f"{ULM}\n{BONN}")
    message = client.chat.completions.create(model=model, messages=ASKED, tools=TOOLS).choices[0].message
    results: list[Any] = [{"role": "tool", "tool_call_id": call.id, "content": "Rain."} for call in message.tool_calls or []]
    engine.script = says("Rain in both.")

    answer = client.chat.completions.create(model=model, messages=[*ASKED, message, *results], tools=TOOLS)

    assert answer.choices[0].message.content == "Rain in both."
    assert (answer.choices[0].message.tool_calls, answer.choices[0].finish_reason) == (None, "stop")
    assert [call["function"]["arguments"] for call in engine.orders[1].messages[2]["tool_calls"]] == ['{"town": "Ulm"}', '{"town": "Bonn"}']


# ---------------------------------------------------------------- what comes back


@database
@pytest.mark.parametrize(
    ("text", "content", "calls"),
    [
        (ULM, None, [("weather", '{"town": "Ulm"}')]),
        (f"Let me look.\n{ULM}\n{BONN}", "Let me look.", [("weather", '{"town": "Ulm"}'), ("weather", '{"town": "Bonn"}')]),
    ],
)
def test_calls_come_as_objects_with_ids_of_their_own(
    client: openai.OpenAI, engine: ScriptedEngine, model: str, text: str, content: str | None, calls: list[tuple[str, str]]
) -> None:
    engine.script = says(text[:9], text[9:])

    choice = client.chat.completions.create(model=model, messages=ASKED, tools=TOOLS).choices[0]

    assert (choice.message.content, called(choice.message), choice.finish_reason) == (content, calls, "tool_calls")
    ids = [call.id for call in choice.message.tool_calls or []]
    assert len(set(ids)) == len(ids)
    assert all(name.startswith("call_") for name in ids)


@database
def test_the_stream_gives_a_call_its_name_once_and_its_arguments_in_pieces(
    client: openai.OpenAI, engine: ScriptedEngine, model: str
) -> None:
    engine.script = says("Look. ", ULM[:20], ULM[20:40], ULM[40:50], ULM[50:] + "\n", BONN)

    chunks = list(client.chat.completions.create(model=model, messages=ASKED, tools=TOOLS, stream=True))

    pieces = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    assert [(piece.index, piece.function.name) for piece in pieces if piece.function and piece.function.name] == [
        (0, "weather"),
        (1, "weather"),
    ]
    assert all((piece.id is None) == (piece.type is None) == (piece.function.name is None) for piece in pieces if piece.function)
    told = {index: "".join(piece.function.arguments for piece in pieces if piece.index == index) for index in (0, 1)}  # type: ignore[union-attr,misc]
    assert told == {0: '{"town": "Ulm"}', 1: '{"town": "Bonn"}'}
    assert len([piece for piece in pieces if piece.index == 0]) > 1
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Look."
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices[0].finish_reason] == ["tool_calls"]


@database
def test_the_clients_own_stream_reader_finds_the_calls(client: openai.OpenAI, engine: ScriptedEngine, model: str) -> None:
    engine.script = says(*(f"{ULM}\n{BONN}"[at : at + 7] for at in range(0, 200, 7)))

    with client.chat.completions.stream(model=model, messages=ASKED, tools=TOOLS[:1]) as stream:
        answer = stream.get_final_completion()

    parsed = [call.function.parsed_arguments for call in answer.choices[0].message.tool_calls or []]
    assert parsed == [{"town": "Ulm"}, {"town": "Bonn"}]


@database
@pytest.mark.parametrize("stream", [False, True])
def test_each_choice_has_calls_of_its_own(client: openai.OpenAI, engine: ScriptedEngine, model: str, stream: bool) -> None:
    engine.script = says_choices(
        protocol.Delta(ULM[:30], 1, choice=0),
        protocol.Delta("None", 1, choice=1),
        protocol.Delta(" needed.", 2, choice=1, reason="stop"),
        protocol.Delta(ULM[30:], 2, choice=0, reason="stop"),
    )

    answered = client.chat.completions.create(model=model, messages=ASKED, tools=TOOLS, n=2, stream=stream)  # type: ignore[call-overload]

    chunks = list(answered) if stream else [answered]
    reasons = {one.index: one.finish_reason for chunk in chunks for one in chunk.choices if one.finish_reason}
    spoken = [(one.index, one.delta if stream else one.message) for chunk in chunks for one in chunk.choices]
    callers = {index for index, said in spoken if said.tool_calls}
    texts = {wanted: "".join(said.content or "" for index, said in spoken if index == wanted) for wanted in (0, 1)}
    assert (reasons, callers, texts) == ({0: "tool_calls", 1: "stop"}, {0}, {0: "", 1: "None needed."})


@database
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_cut_off_in_a_call_says_that_it_was_too_long(
    client: openai.OpenAI, engine: ScriptedEngine, model: str, stream: bool
) -> None:
    engine.script = says(ULM[:-20], reason="length")

    answered = client.chat.completions.create(model=model, messages=ASKED, tools=TOOLS, stream=stream)  # type: ignore[call-overload]

    choices = [chunk.choices[0] for chunk in answered] if stream else [answered.choices[0]]
    calls = [call for one in choices for call in (one.delta if stream else one.message).tool_calls or []]
    assert [one.finish_reason for one in choices if one.finish_reason] == ["length"]
    assert "".join(call.function.arguments for call in calls) == ULM[ULM.index('{"town') : -20]


@database
def test_the_answer_to_a_named_function_ends_as_openais_does(client: openai.OpenAI, engine: ScriptedEngine, model: str) -> None:
    engine.script = says(ULM)
    weather: Any = {"type": "function", "function": {"name": "weather"}}

    choice = client.chat.completions.create(model=model, messages=ASKED, tools=TOOLS, tool_choice=weather).choices[0]

    assert (called(choice.message), choice.finish_reason) == ([("weather", '{"town": "Ulm"}')], "stop")


@database
@pytest.mark.parametrize("stream", [False, True])
def test_a_function_that_the_model_cannot_be_held_to_is_refused(
    client: openai.OpenAI, engine: ScriptedEngine, model: str, stream: bool
) -> None:
    engine.script = begins_and_refuses

    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model=model, messages=ASKED, tools=TOOLS, stream=stream)

    assert (refused.value.code, refused.value.param) == ("grammar_unsupported", "tools")


def begins_and_refuses(order: protocol.GenerationRequest) -> Iterator[protocol.Message]:
    yield protocol.Started(engine="scripted", attempt=order.attempt, prompt_tokens=7)
    yield from fails(protocol.FailureCode.GRAMMAR_UNSUPPORTED, detail={"reason": "Unimplemented keys"})(order)


@given(cuts=st.lists(st.integers(0, 200), max_size=12), text=st.sampled_from([ULM, f"So: {ULM}\n{BONN}", "No call", ULM[:-9], ULM[:20]]))
def test_however_it_is_cut_the_stream_says_what_the_whole_answer_says(cuts: list[int], text: str) -> None:
    tools = Tools(TOLD, Grammar(Form.TOOLS, Wanted(FUNCTIONS).to_json()), is_one=False)
    spoken = Spoken("req_1", 0, tools)
    edges = [0, *sorted({min(cut, len(text)) for cut in cuts}), len(text)]

    deltas = [spoken.hear({"text": text[a:b]}) for a, b in pairwise(edges)]
    deltas.append(spoken.end("stop"))

    calls: dict[int, dict[str, Any]] = {}
    for piece in (piece for delta in deltas for piece in delta.get("tool_calls", ())):
        if "id" in piece:
            assert piece["index"] not in calls
            calls[piece["index"]] = {
                "id": piece["id"],
                "type": piece["type"],
                "function": {"name": piece["function"]["name"], "arguments": ""},
            }
        calls[piece["index"]]["function"]["arguments"] += piece["function"]["arguments"]
    message = spoken.message()
    assert list(calls.values()) == message.get("tool_calls", [])
    assert "".join(delta.get("content", "") for delta in deltas) == (message["content"] or "")
    whole = Spoken("req_1", 0, tools)
    whole.hear({"text": text, "reason": "stop"})
    assert (whole.message(), whole.finish_reason) == (message, spoken.finish_reason)
