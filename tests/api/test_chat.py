"""Chat completions with the official client, unmodified, against the real application; only the engine behind it follows a script."""

import json
import socket
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import openai
import pydantic
import pytest

from inference import protocol
from store.generation import dispatch
from store.generation.models import Request
from store.valkey import client as valkey
from tests import making
from tests.api.conftest import Caller
from tests.api.engine import ScriptedEngine, fails, says, says_choices, waits_to_be_cancelled
from tests.generation import workplace

pytestmark = pytest.mark.django_db(transaction=True)
HELLO = [{"role": "user", "content": "Hello!"}]


@pytest.fixture
def model() -> str:
    version = making.make_prompt(making.make_base(slug="base"), making.make_listing(making.make_publisher(slug="acme"), slug="poet"))
    return version.listing.full_name


@pytest.fixture
def client(address: str, caller: Caller) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{address}/v1", api_key=caller.secret, max_retries=0, timeout=30)


def test_an_answer_in_one_piece_with_its_usage(client: openai.OpenAI, engine: ScriptedEngine, model: str) -> None:
    answer = client.chat.completions.create(model=model, messages=HELLO, temperature=0, seed=7, max_tokens=20, stop=["\n"], user="u-1")

    assert answer.choices[0].message.content == "Hello there"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == model
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (7, 2, 9)
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 2
    (order,) = engine.orders
    assert answer.id == f"chatcmpl-{order.id}"
    assert order.messages == [{"role": "system", "content": "Answer in one sentence."}, *HELLO]
    assert order.sampling["temperature"] == 0
    assert (order.sampling["seed"], order.sampling["max_tokens"], order.sampling["stop"]) == (7, 20, ["\n"])
    assert order.trace == answer._request_id
    row = Request.objects.get()
    assert (row.source, row.api_key.name) == ("api", "tests")


def test_a_stream_gives_the_role_the_pieces_the_reason_and_the_usage(client: openai.OpenAI, engine: ScriptedEngine, model: str) -> None:
    engine.script = says("Good", " mor", "ning", reason="length")

    chunks = list(client.chat.completions.create(model=model, messages=HELLO, stream=True, stream_options={"include_usage": True}))

    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].delta.content for chunk in chunks[1:-2]] == ["Good", " mor", "ning"]
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 10
    assert len({chunk.id for chunk in chunks}) == 1


TWO_CHOICES = (
    protocol.Delta("Good ", 1, choice=0),
    protocol.Delta("Hi", 1, choice=1),
    protocol.Delta("", 2, choice=1, reason="stop"),
    protocol.Delta("day", 2, choice=0),
    protocol.Delta("", 3, choice=0, reason="length"),
)


def test_several_choices_come_in_one_answer_and_cost_the_prompt_once(client: openai.OpenAI, engine: ScriptedEngine, model: str) -> None:
    engine.script = says_choices(*TWO_CHOICES)

    answer = client.chat.completions.create(model=model, messages=HELLO, n=2)

    found = [(choice.index, choice.message.content, choice.finish_reason) for choice in answer.choices]
    assert found == [(0, "Good day", "length"), (1, "Hi", "stop")]
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (7, 5)
    assert engine.orders[0].sampling["n"] == 2


def test_a_stream_names_the_choice_of_each_piece(client: openai.OpenAI, engine: ScriptedEngine, model: str) -> None:
    engine.script = says_choices(*TWO_CHOICES)

    chunks = list(client.chat.completions.create(model=model, messages=HELLO, n=2, stream=True))

    pieces = [(chunk.choices[0].index, chunk.choices[0].delta.content, chunk.choices[0].finish_reason) for chunk in chunks]
    assert pieces == [
        (0, "", None),
        (1, "", None),
        (0, "Good ", None),
        (1, "Hi", None),
        (1, None, "stop"),
        (0, "day", None),
        (0, None, "length"),
    ]


def a_share(token: str, logprob: float) -> dict[str, object]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}


GOOD, DAY = ({**a_share(token, -0.5), "top_logprobs": [a_share(token, -0.5), a_share("Bad", -1.5)]} for token in ("Good", " day"))


def test_log_probabilities_come_with_the_answer_and_a_bias_goes_to_the_model(
    client: openai.OpenAI, engine: ScriptedEngine, model: str
) -> None:
    engine.script = says_choices(protocol.Delta("Good", 1, logprobs=[GOOD]), protocol.Delta(" day", 2, reason="stop", logprobs=[DAY]))

    answer = client.chat.completions.create(model=model, messages=HELLO, logprobs=True, top_logprobs=2, logit_bias={"17": -100})

    assert answer.choices[0].logprobs is not None
    assert [entry.model_dump() for entry in answer.choices[0].logprobs.content or []] == [GOOD, DAY]
    assert (engine.orders[0].sampling["logprobs"], engine.orders[0].sampling["logit_bias"]) == (2, {"17": -100.0})


def test_log_probabilities_come_with_the_pieces_of_a_stream(client: openai.OpenAI, engine: ScriptedEngine, model: str) -> None:
    engine.script = says_choices(protocol.Delta("Good", 1, logprobs=[GOOD]), protocol.Delta("", 2, reason="stop", logprobs=[DAY]))

    chunks = list(client.chat.completions.create(model=model, messages=HELLO, logprobs=True, stream=True))

    told = [chunk.choices[0].logprobs.content for chunk in chunks if chunk.choices[0].logprobs]
    assert [[entry.model_dump() for entry in content or []] for content in told] == [[GOOD], [DAY]]
    assert engine.orders[0].sampling["logprobs"] == 0


def test_without_being_asked_for_there_are_no_log_probabilities(client: openai.OpenAI, engine: ScriptedEngine, model: str) -> None:
    answer = client.chat.completions.create(model=model, messages=HELLO)

    assert answer.choices[0].logprobs is None
    assert engine.orders[0].sampling["logprobs"] is None


def test_a_value_that_only_the_model_can_judge_is_refused_by_name(client: openai.OpenAI, engine: ScriptedEngine, model: str) -> None:
    engine.script = fails(protocol.FailureCode.INVALID_PARAMETER, detail={"param": "logit_bias"})

    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model=model, messages=HELLO, logit_bias={"999999999": 1})

    assert (refused.value.code, refused.value.param) == ("invalid_parameter", "logit_bias")


SCHEMA = {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"], "additionalProperties": False}
NAMED = {"type": "json_schema", "json_schema": {"name": "place", "strict": True, "schema": SCHEMA}}


@pytest.mark.parametrize(
    ("asked", "grammar"),
    [
        ({"response_format": {"type": "json_object"}}, {"kind": "json", "value": ""}),
        ({"response_format": NAMED}, {"kind": "json_schema", "value": json.dumps(SCHEMA, separators=(",", ":"))}),
        (
            {"extra_body": {"structured_outputs": {"json": SCHEMA}}},
            {"kind": "json_schema", "value": json.dumps(SCHEMA, separators=(",", ":"))},
        ),
        ({"extra_body": {"structured_outputs": {"regex": "[0-9]+"}}}, {"kind": "regex", "value": "[0-9]+"}),
        ({"extra_body": {"structured_outputs": {"choice": ["yes", "no"]}}}, {"kind": "choice", "value": ["yes", "no"]}),
        ({"response_format": {"type": "text"}}, None),
    ],
    ids=str,
)
def test_what_the_answer_must_follow_goes_to_the_model(
    client: openai.OpenAI, engine: ScriptedEngine, model: str, asked: dict[str, Any], grammar: dict[str, Any] | None
) -> None:
    client.chat.completions.create(model=model, messages=HELLO, **asked)

    assert engine.orders[0].sampling["grammar"] == grammar


class Place(pydantic.BaseModel):
    town: str


def test_a_model_of_pydantic_is_filled_by_the_official_client(client: openai.OpenAI, engine: ScriptedEngine, model: str) -> None:
    engine.script = says('{"town": ', '"Paris"}')

    answer = client.chat.completions.parse(model=model, messages=HELLO, response_format=Place)

    assert answer.choices[0].message.parsed == Place(town="Paris")
    assert json.loads(engine.orders[0].sampling["grammar"]["value"])["required"] == ["town"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("asked", "param"),
    [({"response_format": NAMED}, "response_format"), ({"extra_body": {"structured_outputs": {"regex": "(?=a)"}}}, "structured_outputs")],
    ids=str,
)
def test_a_rule_that_the_model_cannot_follow_is_refused_with_the_reason(
    client: openai.OpenAI, engine: ScriptedEngine, model: str, asked: dict[str, Any], param: str, stream: bool
) -> None:
    engine.script = refused_rule

    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model=model, messages=HELLO, stream=stream, **asked)

    assert (refused.value.code, refused.value.param) == ("grammar_unsupported", param)
    assert 'Unimplemented keys: ["not"]' in str(refused.value)


def refused_rule(order: protocol.GenerationRequest) -> Iterator[protocol.Message]:
    """An engine first begins, then tries the rule."""
    yield protocol.Started(engine="scripted", attempt=order.attempt, prompt_tokens=7)
    yield from fails(protocol.FailureCode.GRAMMAR_UNSUPPORTED, detail={"reason": 'Unimplemented keys: ["not"]'})(order)


def test_text_parts_and_the_developer_role_are_understood(client: openai.OpenAI, engine: ScriptedEngine, model: str) -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]

    client.chat.completions.create(
        model=f"{model}@1.0.0", messages=[{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts}]
    )

    assert engine.orders[0].messages[1:] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "one\ntwo"}]


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        (protocol.FailureCode.CONTEXT_LENGTH_EXCEEDED, 400, openai.BadRequestError),
        (protocol.FailureCode.BASE_UNAVAILABLE, 503, openai.InternalServerError),
    ],
)
def test_what_the_engine_refuses_has_a_status_of_its_own_streamed_or_not(
    client: openai.OpenAI, engine: ScriptedEngine, model: str, code: protocol.FailureCode, status: int, error: type[openai.APIStatusError]
) -> None:
    engine.script = fails(code)

    for stream in (False, True):
        with pytest.raises(error) as refused:
            client.chat.completions.create(model=model, messages=HELLO, stream=stream)
        assert (refused.value.status_code, refused.value.code) == (status, code)
        assert refused.value.response.headers["x-should-retry"] == ("true" if status == 503 else "false")


def test_a_failure_after_the_first_piece_is_an_event_of_the_stream(client: openai.OpenAI, engine: ScriptedEngine, model: str) -> None:
    engine.script = fails(protocol.FailureCode.ENGINE_DIED, "Once upon")
    chunks = client.chat.completions.create(model=model, messages=HELLO, stream=True)
    got = [next(chunks).choices[0].delta.content, next(chunks).choices[0].delta.content]

    with pytest.raises(openai.APIError) as failed:
        next(chunks)

    assert got == ["", "Once upon"]
    assert failed.value.code == "engine_died"
    assert "stopped in the middle" in failed.value.message


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_hangs_up_cancels_the_generation(
    address: str, caller: Caller, engine: ScriptedEngine, model: str, stream: bool
) -> None:
    engine.script = waits_to_be_cancelled
    body = json.dumps({"model": model, "messages": HELLO, "stream": stream}).encode()
    headers = f"Host: 127.0.0.1\r\nAuthorization: Bearer {caller.secret}\r\nContent-Length: {len(body)}"
    head = f"POST /v1/chat/completions HTTP/1.1\r\n{headers}\r\n\r\n"
    url = urlsplit(address)
    with socket.create_connection((url.hostname, url.port), timeout=20) as connection:
        connection.sendall(head.encode() + body)
        if stream:
            received = b""
            while b"Once" not in received:
                received += connection.recv(65536)
        else:
            wait_for(lambda: engine.orders)

    wait_for(lambda: engine.finished)

    assert engine.finished[0].reason == protocol.FinishReason.CANCELLED


def wait_for(condition: object, *, within_s: float = 15) -> None:
    deadline = time.monotonic() + within_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_every_answer_says_what_is_left_of_the_minute(client: openai.OpenAI, engine: ScriptedEngine, model: str, settings: object) -> None:
    settings.REQUESTS_PER_MINUTE = 2  # type: ignore[attr-defined]

    first = client.chat.completions.with_raw_response.create(model=model, messages=HELLO)
    client.chat.completions.create(model=model, messages=HELLO)
    with pytest.raises(openai.RateLimitError) as limited:
        client.chat.completions.create(model=model, messages=HELLO)

    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    assert first.headers["x-ratelimit-reset-requests"] == "30s"
    headers = limited.value.response.headers
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert 1 <= int(headers["retry-after"]) <= 30
    assert int(headers["retry-after-ms"]) <= 30_000
    assert headers["x-should-retry"] == "true"
    assert len(engine.orders) == Request.objects.count() == 2


def test_without_a_worker_it_says_so_at_once_and_writes_nothing(client: openai.OpenAI, model: str) -> None:
    with pytest.raises(openai.InternalServerError) as refused:
        client.chat.completions.create(model=model, messages=HELLO)

    assert (refused.value.status_code, refused.value.code) == (503, "no_worker")
    assert not Request.objects.exists()
    assert not valkey().llen(protocol.LOAD_QUEUE)


def test_a_broker_that_goes_away_in_between_looks_like_no_worker(
    client: openai.OpenAI, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    workplace.worker_beats()
    monkeypatch.setattr(dispatch, "app", workplace.BROKER_THAT_IS_AWAY)

    with pytest.raises(openai.InternalServerError) as refused:
        client.chat.completions.create(model=model, messages=HELLO)

    assert (refused.value.status_code, refused.value.code) == (503, "no_worker")
    assert refused.value.response.headers["x-should-retry"] == "true"
    assert Request.objects.get().state == Request.State.FAILED


@pytest.mark.usefixtures("valkey_away")
def test_without_valkey_it_says_that_the_store_is_away_and_writes_nothing(client: openai.OpenAI, model: str) -> None:
    with pytest.raises(openai.InternalServerError) as refused:
        client.chat.completions.create(model=model, messages=HELLO)

    assert (refused.value.status_code, refused.value.code) == (503, "unavailable")
    assert refused.value.response.headers["x-should-retry"] == "true"
    assert not Request.objects.exists()


def test_a_client_that_hangs_up_before_a_worker_took_the_request_leaves_nothing_behind(address: str, caller: Caller, model: str) -> None:
    workplace.worker_beats()
    body = json.dumps({"model": model, "messages": HELLO}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {caller.secret}\r\nContent-Length: {len(body)}"
    url = urlsplit(address)
    with socket.create_connection((url.hostname, url.port), timeout=20) as connection:
        connection.sendall(f"{head}\r\n\r\n".encode() + body)
        wait_for(workplace.waiting)

    wait_for(lambda: Request.objects.get().state == Request.State.CANCELLED)

    (order,) = workplace.waiting()
    assert not workplace.claim(order)
    wait_for(lambda: not valkey().zcard(protocol.inflight_key(order.base)))


def test_models_are_listed_and_found_by_name_and_pin(client: openai.OpenAI, model: str) -> None:
    assert sorted(entry.id for entry in client.models.list()) == ["acme/poet", f"{making.Listing.objects.get(slug='base').full_name}"]
    found = client.models.retrieve(f"{model}@1.0.0")  # the client percent-encodes the slash
    assert (found.id, found.owned_by, found.object) == ("acme/poet@1.0.0", "acme", "model")
    base = making.Listing.objects.get(slug="base").current_version.artifact.digest
    valkey().zadd(protocol.precision_key(base), {"int8": time.time()})
    assert [entry.precisions for entry in client.models.list()] == [["int8"], ["int8"]]
    assert (found.precisions, client.models.retrieve(model).precisions) == ([], ["int8"])
    with pytest.raises(openai.NotFoundError) as missing:
        client.models.retrieve("acme/novelist")
    assert missing.value.code == "model_not_found"
