"""Adapters of the engine that asks a vLLM server: each is loaded there once, and the one unused the longest makes room."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference.protocol import Delta, FailureCode, Finished, GenerationRequest
from inference.vllm_engine import VllmEngine
from tests.inference.asking import Outcome, a_request
from tests.inference.serving import wait_until
from tests.inference.tiny import tiny_adapter, tiny_base
from tests.inference.vllm_asking import answered, engine_at, within_time
from tests.inference.vllm_fake import MODEL, VllmFake

ADAPTERS = ["a" * 64, "b" * 64, "c" * 64]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def adapter_folder(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_adapter(tmp_path_factory.mktemp("adapter"), base)


def test_an_adapter_is_loaded_once_under_its_digest(fake: VllmFake, base: Path, adapter_folder: Path) -> None:
    engine = engine_at(fake, base)

    for _ in range(2):
        assert answered(engine, a_request(adapter=ADAPTERS[0]), adapter_folder=lambda: adapter_folder).text == "Paris is it."

    assert fake.calls == [("load", ADAPTERS[0])]
    assert fake.adapters == {ADAPTERS[0]: str(adapter_folder)}
    assert [body["model"] for body in fake.bodies] == [ADAPTERS[0]] * 2


def test_requests_for_an_adapter_that_is_loading_wait_for_it_and_others_do_not(fake: VllmFake, base: Path, adapter_folder: Path) -> None:
    fake.may_load.clear()
    engine = engine_at(fake, base)
    adapted = [a_request(adapter=ADAPTERS[0]) for _ in range(3)]
    for request in adapted:
        engine.submit(request, adapter_folder=adapter_folder)

    other = a_request()
    engine.submit(other)
    within_time(engine, until=lambda events: any(isinstance(event, Finished) for event in events))
    assert [body["model"] for body in fake.bodies] == [MODEL]

    fake.may_load.set()
    ends = [event for _, event in within_time(engine) if isinstance(event, Finished)]
    assert ({end.request for end in ends}, {end.reason for end in ends}) == ({request.id for request in adapted}, {"stop"})
    assert fake.calls == [("load", ADAPTERS[0])]


def test_the_adapter_unused_the_longest_makes_room(fake: VllmFake, base: Path, adapter_folder: Path) -> None:
    engine = engine_at(fake, base, max_adapters=2)

    for adapter in (ADAPTERS[0], ADAPTERS[1], ADAPTERS[0], ADAPTERS[2]):
        answered(engine, a_request(adapter=adapter), adapter_folder=adapter_folder)

    assert fake.calls == [("load", ADAPTERS[0]), ("load", ADAPTERS[1]), ("unload", ADAPTERS[1]), ("load", ADAPTERS[2])]
    assert (engine.stats()["adapters"], engine.stats()["adapter_evictions"]) == (2, 1)


def one_answered_and_one_waiting(fake: VllmFake, base: Path, folder: Path) -> tuple[VllmEngine, GenerationRequest, GenerationRequest]:
    """Where there is room for one adapter: a request being answered with it, and one for another adapter."""
    fake.script.hold_after = 1
    engine = engine_at(fake, base, max_adapters=1)
    first, second = a_request(adapter=ADAPTERS[0]), a_request(adapter=ADAPTERS[1])
    engine.submit(first, adapter_folder=folder)
    within_time(engine, until=lambda events: any(isinstance(event, Delta) for event in events))
    engine.submit(second, adapter_folder=folder)
    return engine, first, second


def test_an_adapter_in_use_is_not_unloaded_and_who_waits_for_its_place_gets_it_afterwards(
    fake: VllmFake, base: Path, adapter_folder: Path
) -> None:
    engine, first, second = one_answered_and_one_waiting(fake, base, adapter_folder)
    engine.step()
    assert fake.calls == [("load", ADAPTERS[0])]

    fake.script.hold_after = None
    engine.cancel(first.id)
    events = [event for id_, event in within_time(engine) if id_ == second.id]

    assert Outcome([None, *events]).text == "Paris is it."
    assert fake.calls == [("load", ADAPTERS[0]), ("unload", ADAPTERS[0]), ("load", ADAPTERS[1])]


def test_a_request_cancelled_while_its_adapter_waits_for_a_place_is_never_sent(fake: VllmFake, base: Path, adapter_folder: Path) -> None:
    engine, first, second = one_answered_and_one_waiting(fake, base, adapter_folder)

    engine.cancel(second.id)
    engine.cancel(first.id)
    within_time(engine)

    wait_until(lambda: engine.stats()["adapters_in_use"] == 0)
    assert [body["model"] for body in fake.bodies] == [ADAPTERS[0]]


def test_adapters_a_restarted_server_has_lost_are_loaded_again(fake: VllmFake, base: Path, adapter_folder: Path) -> None:
    engine = engine_at(fake, base)
    answered(engine, a_request(adapter=ADAPTERS[0]), adapter_folder=adapter_folder)
    fake.adapters.clear()

    outcome = answered(engine, a_request(adapter=ADAPTERS[0]), adapter_folder=adapter_folder)

    assert outcome.text == "Paris is it."
    assert fake.calls == [("load", ADAPTERS[0])] * 2


def test_adapters_of_an_engine_before_are_taken_over_and_an_operators_own_are_left_alone(
    fake: VllmFake, base: Path, adapter_folder: Path
) -> None:
    fake.adapters |= {ADAPTERS[0]: str(adapter_folder), "an-operators-own": "/models/lora"}
    engine = engine_at(fake, base, max_adapters=1)

    for adapter in ADAPTERS[:2]:
        answered(engine, a_request(adapter=adapter), adapter_folder=adapter_folder)

    assert fake.calls == [("unload", ADAPTERS[0]), ("load", ADAPTERS[1])]
    assert set(fake.adapters) == {ADAPTERS[1], "an-operators-own"}


def test_an_adapter_that_cannot_be_fetched_or_loaded_fails_its_request_alone(fake: VllmFake, base: Path, tmp_path: Path) -> None:
    def nothing() -> Path:
        raise OSError("the store of artifacts is away")

    engine = engine_at(fake, base)

    for source in (nothing, tmp_path, None):
        outcome = answered(engine, a_request(adapter=ADAPTERS[0]), adapter_folder=source)
        assert (outcome.finished.reason, outcome.finished.failure) == ("error", FailureCode.ADAPTER_UNAVAILABLE)
    assert answered(engine, a_request()).text == "Paris is it."
    assert engine.stats()["adapters_loading"] == 0
