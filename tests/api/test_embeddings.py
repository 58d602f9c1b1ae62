"""Embeddings with the official client, unmodified; only the engine behind them follows a script."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from inference import protocol
from store.billing.models import Reservation
from store.catalog.models import Version
from store.generation.models import Request
from store.generation.tasks import finished as settled
from tests import making
from tests.api.conftest import Caller
from tests.api.engine import ScriptedEngine, embeds, fails
from tests.generation.test_admission import credited, priced
from tests.generation.test_settlement import wallet

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def model() -> str:
    version = making.make_prompt(making.make_base(slug="base"), making.make_listing(making.make_publisher(slug="acme"), slug="poet"))
    return version.listing.full_name


@pytest.fixture
def client(address: str, caller: Caller) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{address}/v1", api_key=caller.secret, max_retries=0, timeout=30)


def test_each_text_gets_a_vector_and_is_metered(client: openai.OpenAI, engine: ScriptedEngine, model: str, caller: Caller) -> None:
    engine.script = embeds(0.5, -0.25, 0.75)

    answer = client.embeddings.create(model=model, input=["Hello", "Hi"])  # the client asks for base64 and reads it
    short = client.embeddings.create(model=model, input="Hello", dimensions=2, encoding_format="float")

    assert [(entry.index, entry.embedding) for entry in answer.data] == [(0, [0.5, -0.25, 0.75]), (1, [0.5, -0.25, 0.75])]
    assert (answer.model, answer.usage.prompt_tokens, answer.usage.total_tokens) == (model, 7, 7)
    assert short.data[0].embedding == [0.5, -0.25]
    orders = {order.messages[-1]["content"]: order for order in engine.orders}
    assert [len(order.messages) for order in orders.values()] == [1, 1]  # without the version's instructions
    assert {order.tenant for order in engine.orders} == {caller.user.public_id}
    assert Request.objects.filter(user=caller.user, source=Request.Source.API).count() == 3


def test_what_is_read_is_paid_at_the_price_of_input_and_nobody_reads_without_credit(
    client: openai.OpenAI, engine: ScriptedEngine, model: str, caller: Caller
) -> None:
    engine.script = embeds(0.6, 0.8)
    priced(Version.objects.get(listing__slug="poet"))

    with pytest.raises(openai.APIStatusError) as refused:
        client.embeddings.create(model=model, input=["Hello", "Hi"])
    assert (refused.value.status_code, refused.value.code) == (402, "insufficient_credit")
    assert (engine.orders, Request.objects.count(), Reservation.objects.count()) == ([], 0, 0)

    credited(caller.user)
    client.embeddings.create(model=model, input=["Hello", "Hi"])
    for event in engine.finished:
        settled(event.to_json())

    asked = Request.objects.order_by("prompt_tokens")
    assert [(one.prompt_tokens, one.completion_tokens, one.cost_micro) for one in asked] == [(2, 0, 2), (5, 0, 5)]
    assert wallet(caller.user) == (1_000_000 - 7, 0)


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"input": [1, 2]}, "input[0]"),
        ({"input": []}, "input"),
        ({"input": ["Hello", " "]}, "input[1]"),
        ({"input": ["Hello"] * 33}, "input"),
        ({"input": "Hello", "dimensions": 0}, "dimensions"),
        ({"input": "Hello", "encoding_format": "hex"}, "encoding_format"),
        ({"input": "Hello", "extra_body": {"temperature": 1}}, "temperature"),
    ],
)
def test_what_cannot_be_embedded_is_refused_by_name(
    client: openai.OpenAI, engine: ScriptedEngine, model: str, asked: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.embeddings.create(model=model, **{"encoding_format": "float"} | asked)

    assert refused.value.param == param
    assert not Request.objects.filter(state=Request.State.FINISHED).exists()


def test_what_the_engine_refuses_names_the_parameter(client: openai.OpenAI, engine: ScriptedEngine, model: str) -> None:
    engine.script = fails(protocol.FailureCode.INVALID_PARAMETER, detail={"param": "dimensions"})
    with pytest.raises(openai.BadRequestError) as refused:
        client.embeddings.create(model=model, input="Hello", dimensions=5000)
    assert refused.value.param == "dimensions"

    engine.script = fails(protocol.FailureCode.CONTEXT_LENGTH_EXCEEDED)
    with pytest.raises(openai.BadRequestError) as refused:
        client.embeddings.create(model=model, input="Hello")
    assert refused.value.param == "input"
