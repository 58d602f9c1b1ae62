"""The engine that asks a vLLM server, against a stand-in for that server's API; no real server was asked."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inference.artifacts import ArtifactStore
from inference.engine import EngineCore
from inference.prompts import RequestRefused
from inference.protocol import CANCELLED, Delta, FailureCode, Finished, engine_key
from inference.sampling_params import Grammar
from inference.vllm_choice import VllmChoice
from inference.vllm_engine import VllmEngine, VllmOptions
from inference.vllm_server import VllmFailed
from tests.inference import serving
from tests.inference.asking import a_request, an_engine, finish
from tests.inference.serving import Reader, engines_in, wait_until
from tests.inference.tiny import tiny_adapter, tiny_base
from tests.inference.vllm_asking import END, answered, engine_at, within_time
from tests.inference.vllm_fake import KEY, MODEL, Script, VllmFake, vllm_fake


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def core(base: Path) -> EngineCore:
    """Our own engine, whose answers the server is told to give."""
    return an_engine(base)


def told(events: list[tuple[str, Any]]) -> list[dict[str, Any]]:
    """Without times, and choice by choice: in which order choices are told is nobody's promise."""
    timeless = {"first_token_ms": None, "duration_ms": 0.0}
    raw = [event.to_json() | (timeless if isinstance(event, Finished) else {}) for _, event in events]
    return sorted(raw, key=lambda event: (["started", "delta", "finished"].index(event["type"]), event.get("choice", 0)))


# ---------------------------------------------------------------- the same stream as the core's


@pytest.mark.parametrize(
    "sampling",
    [
        {},
        {"max_tokens": 40, "temperature": 1.0, "seed": 5},
        {"max_tokens": 40, "stop": ("e",)},
        {"max_tokens": 40, "stop": ("e",), "min_tokens": 30},
        {"n": 3, "temperature": 1.0, "seed": 7},
        {"n": 2, "temperature": 0.0},
        {"logprobs": 0},
        {"logprobs": 3, "temperature": 1.5, "seed": 3, "n": 2},
        {"logit_bias": {END: 100.0}, "min_tokens": 4},
        {"logit_bias": {END: 100.0}, "ignore_eos": True, "logprobs": 1},
        {"presence_penalty": 0.5, "frequency_penalty": 0.5, "top_k": 20, "top_p": 0.9, "min_p": 0.01, "temperature": 1.0, "seed": 1},
    ],
    ids=str,
)
def test_a_stream_is_the_one_the_core_makes_of_the_same_tokens(core: EngineCore, base: Path, sampling: dict[str, Any]) -> None:
    request = a_request("What is the capital of France?", **sampling)
    answer = core.submit(request)
    expected = finish(core)
    script = Script(
        [branch.tokens for branch in answer.branches],
        [branch.logprobs for branch in answer.branches],
        reason=answer.branches[0].reason,
        cached_tokens=answer.usage.cached_tokens,
    )

    with vllm_fake(script) as fake:
        engine = engine_at(fake, base)
        engine.submit(request)
        events = within_time(engine)

    assert told(events) == told(expected)
    assert not engine.has_work


def test_what_is_asked_of_the_server_says_everything_it_would_otherwise_choose_itself(fake: VllmFake, base: Path, core: EngineCore) -> None:
    request = a_request(
        *("Hello!",),
        max_tokens=9,
        temperature=0.7,
        top_p=0.0,
        top_k=5,
        min_p=0.1,
        seed=-3,
        n=1,
        stop=("", "zzz"),
        min_tokens=2,
        logit_bias={7: 1.5},
        presence_penalty=0.25,
        frequency_penalty=-0.25,
    )

    answered(engine_at(fake, base), request)

    (body,) = fake.bodies
    assert len(body.pop("cache_salt")) == 64
    assert body == {
        "model": MODEL,
        "prompt": core.prepare(request).tokens,
        "add_special_tokens": False,
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_token_ids": True,
        "max_tokens": 9,
        "min_tokens": 2,
        "temperature": 0.7,
        "top_p": 1e-6,
        "top_k": 5,
        "min_p": 0.1,
        "presence_penalty": 0.25,
        "frequency_penalty": -0.25,
        "repetition_penalty": 1.0,
        "ignore_eos": False,
        "stop": ["zzz"],
        "stop_token_ids": [0, 2],
        "n": 1,
        "seed": -3,
        "logit_bias": {"7": 1.5},
    }


def test_two_tenants_share_no_prefix_on_the_server(fake: VllmFake, base: Path) -> None:
    engine = engine_at(fake, base)

    for tenant in ("one", "other", "one"):
        answered(engine, a_request(tenant=tenant))

    salts = [body["cache_salt"] for body in fake.bodies]
    assert salts[0] == salts[2] != salts[1]


def test_tokens_after_an_end_that_only_we_saw_end_the_request(fake: VllmFake, base: Path, words: Callable[[str], list[int]]) -> None:
    fake.script = Script([[*words("One two three"), END, *words("four five six")]], hold_after=len(words("One two three")) + 3)

    outcome = answered(engine_at(fake, base), a_request(max_tokens=100))

    assert (outcome.text, outcome.finished.reason) == ("One two three", "stop")
    assert wait_until(lambda: fake.left) == [MODEL]


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(("sampling", "param"), [({"prompt_logprobs": 1}, "prompt_logprobs"), ({"temperature": 2.5}, "temperature")])
def test_what_vllm_cannot_do_is_refused_by_name(fake: VllmFake, base: Path, sampling: dict[str, Any], param: str) -> None:
    engine = engine_at(fake, base)

    with pytest.raises(RequestRefused, match=param) as refused:
        engine.submit(a_request(**sampling))

    assert (refused.value.code, refused.value.detail) == (FailureCode.INVALID_PARAMETER, {"param": param})
    assert (engine.has_work, fake.bodies) == (False, [])


def test_a_rule_for_the_answer_is_refused_and_not_left_out(fake: VllmFake, base: Path) -> None:
    engine = engine_at(fake, base)

    with pytest.raises(RequestRefused, match="cannot be made to follow the json asked for") as refused:
        engine.submit(a_request(grammar=Grammar("json")))

    assert (refused.value.code, set(refused.value.detail)) == (FailureCode.GRAMMAR_UNSUPPORTED, {"reason"})
    assert (engine.has_work, fake.bodies) == (False, [])


def test_the_context_is_the_smaller_one_of_model_and_server(base: Path) -> None:
    with vllm_fake(Script([[END]]), context_length=64) as fake:
        engine = engine_at(fake, base)

        with pytest.raises(RequestRefused, match="context holds 64"):
            engine.submit(a_request("Tell me " * 60))
        answered(engine, a_request("Hello!", max_tokens=500))

    (body,) = fake.bodies
    assert body["max_tokens"] == 64 - len(body["prompt"])


@pytest.mark.parametrize(
    ("status", "error", "code", "detail"),
    [
        (400, {"message": "top_k is wrong", "param": "top_k"}, FailureCode.INVALID_PARAMETER, {"param": "top_k"}),
        (400, {"message": "something is wrong"}, FailureCode.INTERNAL, {}),
        (404, {"message": "no such model"}, FailureCode.BASE_UNAVAILABLE, {}),
        (503, {"message": "too much"}, FailureCode.OVERLOADED, {}),
        (500, {"message": "broken"}, FailureCode.INTERNAL, {}),
        (307, {"message": "look elsewhere"}, FailureCode.INTERNAL, {}),
    ],
)
def test_a_refusal_of_the_server_fails_the_request_alone(
    fake: VllmFake, base: Path, status: int, error: dict[str, Any], code: FailureCode, detail: dict[str, Any]
) -> None:
    engine = engine_at(fake, base)
    script, fake.script = fake.script, Script([[END]], refusal=(status, error))

    refused = answered(engine, a_request())
    fake.script = script

    assert (refused.finished.reason, refused.finished.failure, refused.finished.detail) == ("error", code, detail)
    assert error["message"] in refused.finished.message
    assert answered(engine, a_request()).text == "Paris is it."


def test_an_engine_with_enough_to_do_has_no_room_and_refuses_at_twice_as_much(fake: VllmFake, base: Path) -> None:
    fake.script.hold_after = 0
    engine = engine_at(fake, base, max_running=1)

    engine.submit(a_request())
    assert not engine.has_room
    engine.submit(a_request())
    with pytest.raises(RequestRefused, match="as many requests"):
        engine.submit(a_request())

    engine.close()


# ---------------------------------------------------------------- ends


def test_a_cancelled_request_ends_at_once_and_leaves_the_server(fake: VllmFake, base: Path) -> None:
    fake.script.hold_after = 2
    engine = engine_at(fake, base)
    request = a_request()
    engine.submit(request)
    begun = within_time(engine, until=lambda events: any(isinstance(event, Delta) for event in events))

    engine.cancel(request.id)

    ((_, last),) = [pair for pair in engine.step() if isinstance(pair[1], Finished)]
    assert begun
    assert (last.reason, last.usage["completion_tokens"] > 0, engine.has_work) == ("cancelled", True, False)
    assert wait_until(lambda: fake.left) == [MODEL]


def test_a_deadline_ends_a_request_the_server_goes_on_with(fake: VllmFake, base: Path) -> None:
    fake.script.hold_after = 1

    outcome = answered(engine_at(fake, base), a_request(deadline=time.time() + 0.3))

    assert (outcome.finished.reason, outcome.finished.failure) == ("deadline", None)
    assert wait_until(lambda: fake.left) == [MODEL]


def test_a_server_that_goes_in_mid_stream_fails_the_request_with_what_it_had_said(fake: VllmFake, base: Path) -> None:
    fake.script.break_after = 3

    outcome = answered(engine_at(fake, base), a_request())

    assert (outcome.finished.reason, outcome.finished.failure) == ("error", FailureCode.ENGINE_DIED)
    assert outcome.finished.usage["completion_tokens"] == 3
    assert fake.url not in outcome.finished.message
    assert "Paris is it.".startswith(outcome.text)


def test_an_engine_whose_server_is_gone_has_no_room_until_it_is_back(fake: VllmFake, base: Path) -> None:
    engine = engine_at(fake, base)
    fake.stop()

    lost = answered(engine, a_request())
    assert (lost.finished.reason, lost.finished.failure) == ("error", FailureCode.ENGINE_DIED)
    assert (engine.has_room, engine.stats()["server"]) == (False, "away")

    with vllm_fake(fake.script, port=fake.port):
        wait_until(lambda: engine.has_room, within_s=15)
        assert answered(engine, a_request()).text == "Paris is it."


def test_an_engine_is_not_made_without_its_server(fake: VllmFake, base: Path) -> None:
    fake.stop()

    with pytest.raises(VllmFailed, match="does not answer"):
        engine_at(fake, base)


def test_a_wrong_key_is_said(fake: VllmFake, base: Path) -> None:
    with pytest.raises(VllmFailed, match="status 401"):
        VllmEngine.load(base, VllmOptions(fake.url, "another"))


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ({"reason": "abort"}, FailureCode.ENGINE_DIED),
        ({"reason": None}, FailureCode.INTERNAL),
        ({"reason": None, "fails_with": "out of memory"}, FailureCode.INTERNAL),
    ],
    ids=["aborted", "ended without a reason", "failed"],
)
def test_a_stream_that_does_not_end_well_is_an_error(
    fake: VllmFake, base: Path, words: Callable[[str], list[int]], script: dict[str, Any], code: FailureCode
) -> None:
    fake.script = Script([words("Paris is")], **script)

    outcome = answered(engine_at(fake, base), a_request())

    assert (outcome.finished.reason, outcome.finished.failure) == ("error", code)
    assert script.get("fails_with", "") in outcome.finished.message


def test_what_happens_to_a_stream_after_the_answer_does_not_change_how_it_ended(fake: VllmFake, base: Path) -> None:
    fake.script.fails_with = "too late"

    outcome = answered(engine_at(fake, base), a_request())

    assert (outcome.text, outcome.finished.reason, outcome.finished.failure) == ("Paris is it.", "stop", None)


@pytest.mark.parametrize(
    "token_ids", [[-1], [2**40], ["7"], [1.5], None], ids=["negative", "too large", "a text", "a fraction", "of an old vLLM"]
)
def test_an_answer_that_is_not_of_the_protocol_fails_its_request(fake: VllmFake, base: Path, token_ids: Any) -> None:
    fake.script = Script([token_ids] if token_ids else [[None]])

    outcome = answered(engine_at(fake, base), a_request())

    assert (outcome.finished.failure, outcome.finished.usage["completion_tokens"]) == (FailureCode.INTERNAL, 0)


# ---------------------------------------------------------------- in a process of its own, beside the core's


def test_a_worker_streams_a_chosen_base_from_its_server(valkey: str, tmp_path: Path, words: Callable[[str], list[int]]) -> None:
    artifacts = ArtifactStore((tmp_path / "artifacts").as_uri())
    base_folder = tiny_base(tmp_path / "base")
    base = artifacts.put_folder(base_folder).digest
    adapter = artifacts.put_folder(tiny_adapter(tmp_path / "adapter", base_folder)).digest
    reader = Reader(valkey)
    house = {"redis_url": valkey, "artifacts": (tmp_path / "artifacts").as_uri(), "memory_bytes": 450 * 2**20}
    with vllm_fake(Script([[*words("Paris is it."), END]], cached_tokens=5)) as fake:
        vllm = VllmChoice({base[:8]: fake.url}, KEY)
        with engines_in(tmp_path / "cache", vllm=vllm, **house) as (engines, sent):
            request = serving.a_request(base, adapter=adapter)
            engines.submit(request)
            last = reader.last(request)

            assert (reader.text(request), last["reason"], last["usage"]["cached_tokens"]) == ("Paris is it.", "stop", 5)
            assert wait_until(lambda: [event for event in sent if event["request"] == request.id]) == [last]
            assert fake.calls == [("load", adapter)]
            started = reader.events(request)[0]
            assert json.loads(wait_until(lambda: reader.valkey.get(engine_key(started["engine"]))))["dtype"] == "vllm"

            fake.script.hold_after = 1
            held = serving.a_request(base, leased=True)
            reader.lease(held)
            engines.submit(held)
            reader.begun(held)
            reader.lease(held, CANCELLED)

            assert reader.last(held)["reason"] == "cancelled"
            assert wait_until(lambda: fake.left) == [MODEL]


def test_a_base_whose_server_is_away_is_said_to_be_unavailable(valkey: str, tmp_path: Path) -> None:
    artifacts = (tmp_path / "artifacts").as_uri()
    base = ArtifactStore(artifacts).put_folder(tiny_base(tmp_path / "base")).digest
    with vllm_fake(Script([[END]])) as fake:
        away = fake.url
    with engines_in(tmp_path / "cache", redis_url=valkey, artifacts=artifacts, vllm=VllmChoice({base[:8]: away}, KEY)) as (engines, _):
        request = serving.a_request(base)
        engines.submit(request)

        last = Reader(valkey).last(request)

    assert (last["reason"], last["failure"]) == ("error", FailureCode.BASE_UNAVAILABLE)
    assert "vLLM server does not answer" in last["message"]
    assert away not in last["message"]
