"""Many adapters of one base in an engine: loaded beside the running batch, kept within a budget, never mixed up, and failing alone."""

from __future__ import annotations

import json
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from inference.adapters import LOADERS, AdapterStore, Hold
from inference.config import GPTConfig
from inference.engine import EngineCore
from inference.lora import Adapter
from inference.lora_settings import AdapterError
from inference.protocol import FailureCode, Finished, FinishReason, GenerationRequest
from tests.inference.asking import Outcome, a_request, an_engine, finish, outcomes, run, texts
from tests.inference.serving import wait_until
from tests.inference.tiny import tiny_adapter, tiny_base, write_json

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def folders(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Eight adapters of equal size."""
    place = tmp_path_factory.mktemp("adapters")
    return [tiny_adapter(place / str(seed), base, seed=seed) for seed in range(8)]


@pytest.fixture(scope="module")
def adapter_bytes(base: Path, folders: list[Path]) -> int:
    return Adapter.load(folders[0], GPTConfig.from_folder(base)).size_bytes


@pytest.fixture(autouse=True)
def no_loader_is_left() -> Iterator[None]:
    yield
    wait_until(lambda: not any(thread.name == "adapter-loader" for thread in threading.enumerate()), within_s=10)


def a_store(base: Path, *, budget_bytes: int) -> AdapterStore:
    config = GPTConfig.from_folder(base)
    return AdapterStore(config, dtype=torch.float32, device=torch.device("cpu"), budget_bytes=budget_bytes)


def settled(hold: Hold) -> Hold:
    wait_until(lambda: hold.settled, within_s=10)
    return hold


def used(store: AdapterStore, folder: Path) -> Adapter:
    """Holds an adapter, waits for it and releases it."""
    hold = settled(store.hold(folder.name, folder))
    assert hold.adapter is not None, hold.failure
    adapter = hold.adapter
    hold.release()
    return adapter


def after(event: threading.Event, folder: Path) -> Path:
    """A source that has the folder once the event has come."""
    event.wait(30)
    return folder


# ---------------------------------------------------------------- the store


def test_an_adapter_is_loaded_once_and_kept(base: Path, folders: list[Path], adapter_bytes: int) -> None:
    store = a_store(base, budget_bytes=10 * adapter_bytes)

    first, second = settled(store.hold("a", folders[0])), store.hold("a", None)

    assert first.adapter is second.adapter is not None
    assert store.stats() == {
        "adapters": 1,
        "adapters_in_use": 1,
        "adapters_loading": 0,
        "adapter_bytes": adapter_bytes,
        "adapter_loads": 1,
        "adapter_failures": 0,
        "adapter_hits": 1,
        "adapter_evictions": 0,
    }


def test_the_longest_unused_are_dropped_and_what_is_held_is_not(base: Path, folders: list[Path], adapter_bytes: int) -> None:
    store = a_store(base, budget_bytes=3 * adapter_bytes)
    held = settled(store.hold(folders[0].name, folders[0]))
    for folder in folders[1:3]:
        used(store, folder)
    used(store, folders[1])  # now 2 is the longest unused

    used(store, folders[3])

    assert held.adapter is not None
    with pytest.raises(AdapterError, match="its files are not here"):
        store.hold(folders[2].name, None)
    assert all(store.hold(folders[number].name, None).adapter for number in (0, 1, 3))
    assert (store.stats()["adapter_evictions"], store.stats()["adapter_bytes"]) == (1, 3 * adapter_bytes)


def test_loading_waits_for_room_when_all_is_held(base: Path, folders: list[Path], adapter_bytes: int) -> None:
    store = a_store(base, budget_bytes=2 * adapter_bytes)
    first, second = (settled(store.hold(folder.name, folder)) for folder in folders[:2])
    third = store.hold(folders[2].name, folders[2])
    store.wait([third], timeout_s=0.05)
    assert not third.settled

    second.release()

    assert settled(third).adapter is not None
    assert first.adapter is not None
    assert store.stats()["adapter_bytes"] == 2 * adapter_bytes


def test_what_is_no_longer_wanted_waits_for_no_room(base: Path, folders: list[Path], adapter_bytes: int) -> None:
    store = a_store(base, budget_bytes=adapter_bytes)
    held = settled(store.hold("held", folders[0]))
    waiting = [store.hold(folder.name, folder) for folder in folders[1:]]

    for hold in waiting:
        hold.release()
        hold.release()  # once more does no harm

    wait_until(lambda: store.stats()["adapters_loading"] == 0, within_s=10)
    assert (store.stats()["adapters"], store.stats()["adapter_loads"], store.stats()["adapter_bytes"]) == (1, 1, adapter_bytes)
    held.release()
    assert used(store, folders[1]).rank == 4


def test_an_adapter_larger_than_the_budget_is_said_to_be(base: Path, folders: list[Path], adapter_bytes: int) -> None:
    store = a_store(base, budget_bytes=adapter_bytes - 1)

    hold = settled(store.hold("a", folders[0]))

    assert hold.adapter is None
    assert "it takes 1 MB; this engine keeps at most 1 MB of adapters" in hold.failure
    assert (store.stats()["adapters_loading"], store.stats()["adapter_bytes"]) == (0, 0)


def test_a_failed_load_is_tried_again_by_the_next(base: Path, folders: list[Path], adapter_bytes: int, tmp_path: Path) -> None:
    store = a_store(base, budget_bytes=4 * adapter_bytes)

    missing = settled(store.hold("a", tmp_path / "nothing"))
    found = settled(store.hold("a", folders[0]))

    assert "adapter_config.json cannot be read" in missing.failure
    assert found.adapter is not None
    assert (store.stats()["adapter_failures"], store.stats()["adapter_bytes"]) == (1, adapter_bytes)
    missing.release()
    assert store.stats()["adapters_in_use"] == 1


def test_a_source_that_fails_or_hangs_holds_up_no_other(base: Path, folders: list[Path], adapter_bytes: int) -> None:
    store = a_store(base, budget_bytes=8 * adapter_bytes)
    here = threading.Event()

    def unreachable() -> Path:
        raise ConnectionError("the artifact store is away")

    slowly = store.hold("slow", partial(after, here, folders[0]))
    failing = settled(store.hold("failing", unreachable))
    quickly = settled(store.hold("quick", folders[1]))

    assert failing.failure == "The adapter could not be read: ConnectionError: the artifact store is away"
    assert quickly.adapter is not None
    assert not slowly.settled
    here.set()
    assert settled(slowly).adapter is not None


def test_what_somebody_waits_for_is_loaded_before_what_can_wait(base: Path, folders: list[Path], adapter_bytes: int) -> None:
    store = a_store(base, budget_bytes=20 * adapter_bytes)
    begin, order = threading.Event(), []

    def source(name: str, folder: Path) -> Path:
        begin.wait(30)
        order.append(name)
        return folder

    busy = [store.hold(name, partial(source, name, folders[0])) for name in map(str, range(LOADERS))]
    holds = [
        store.hold(name, partial(source, name, folders[1]), urgent=urgent)
        for name, urgent in (*((f"batch {number}", False) for number in range(LOADERS)), ("interactive", True))
    ]
    wait_until(lambda: len(store._queue) == LOADERS + 1)

    begin.set()

    for hold in busy + holds:
        settled(hold)
    assert order.index("interactive") < max(order.index(f"batch {number}") for number in range(LOADERS))


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_held_and_released_the_budget_is_kept(base: Path, folders: list[Path], adapter_bytes: int, seed: int) -> None:
    chance = random.Random(seed)
    store = a_store(base, budget_bytes=3 * adapter_bytes)
    holds: list[tuple[Path, Hold]] = []

    for _ in range(300):
        if holds and chance.random() < 0.5:
            _, hold = holds.pop(chance.randrange(len(holds)))
            hold.release()
        else:
            folder = chance.choice(folders)
            holds.append((folder, store.hold(folder.name, folder)))
        assert store.stats()["adapter_bytes"] <= 3 * adapter_bytes
    while holds:  # the first that is here is done: then there is room for the next
        wait_until(lambda: any(hold.settled for _, hold in holds), within_s=10)
        folder, hold = holds.pop(next(at for at, (_, hold) in enumerate(holds) if hold.settled))
        assert hold.adapter is not None, hold.failure
        assert torch.equal(hold.adapter.flat, Adapter.load(folder, GPTConfig.from_folder(base)).flat)
        hold.release()

    wait_until(lambda: store.stats()["adapters_loading"] == 0, within_s=10)
    stats = store.stats()
    assert (stats["adapters_in_use"], stats["adapter_failures"]) == (0, 0)
    assert stats["adapter_bytes"] == stats["adapters"] * adapter_bytes <= 3 * adapter_bytes


# ---------------------------------------------------------------- in the engine


def ask(adapter: Path | None = None, text: str = "Hello!", **fields: Any) -> GenerationRequest:
    return a_request(text, adapter=adapter and adapter.name, **fields)


def alone(base: Path, adapter: Path | None, text: str = "Hello!", **fields: Any) -> str:
    return texts(run(an_engine(base), ask(adapter, text, **fields), adapter_folder=adapter))[0]


def test_mixed_ranks_and_base_requests_get_in_one_batch_what_each_gets_alone(base: Path, tmp_path: Path) -> None:
    kinds: list[dict[str, Any]] = [{"rank": 1}, {"rank": 8}, {"rank": 16}, {"rank": 16, "target_modules": ALL}, {"rank": 40}, {"rank": 5}]
    adapters = [tiny_adapter(tmp_path / str(seed), base, seed=seed, **kind) for seed, kind in enumerate(kinds * 2)]
    asked: list[tuple[Path | None, str]] = [(adapter, text) for adapter in [*adapters, None, None] for text in ("Hello!", "Tell me " * 30)]
    expected = [alone(base, adapter, text) for adapter, text in asked]
    engine = an_engine(base, max_batch_tokens=64)

    requests = [ask(adapter, text) for adapter, text in asked]
    for request, (adapter, _) in zip(requests, asked, strict=True):
        engine.submit(request, adapter_folder=adapter)

    assert texts(outcomes(finish(engine), requests)) == expected
    assert len(set(expected)) == 26


def test_while_an_adapter_is_loading_others_are_answered(base: Path, folders: list[Path]) -> None:
    engine, here = an_engine(base), threading.Event()
    waiting, other = ask(folders[0]), ask()
    engine.submit(waiting, adapter_folder=partial(after, here, folders[0]))
    engine.submit(other)
    events = []
    while not any(isinstance(event, Finished) for _, event in events):
        events += engine.step()
    assert events[-1][0] == other.id
    assert (engine.stats()["loading"], engine.stats()["running"], engine.stats()["waiting"]) == (1, 0, 0)

    here.set()

    (outcome,) = outcomes(events + finish(engine), [waiting])
    assert outcome.text == alone(base, folders[0])


@pytest.mark.parametrize("reason", [FinishReason.CANCELLED, FinishReason.DEADLINE])
def test_a_request_ends_while_its_adapter_is_loading(base: Path, folders: list[Path], reason: FinishReason) -> None:
    engine, here = an_engine(base), threading.Event()
    request = ask(folders[0], deadline=time.time() + (0.2 if reason is FinishReason.DEADLINE else 600))
    engine.submit(request, adapter_folder=partial(after, here, folders[0]))
    engine.step()

    if reason is FinishReason.CANCELLED:
        engine.cancel(request.id)
    (outcome,) = outcomes([(request.id, None), *finish(engine)], [request])

    assert outcome.finished.reason == reason
    assert outcome.finished.usage["completion_tokens"] == 0
    here.set()
    wait_until(lambda: engine.stats()["adapters_loading"] == 0, within_s=10)
    stats = engine.stats()
    assert (stats["loading"], stats["adapters_in_use"], stats["blocks_used"]) == (0, 0, 0)


def nan(folder: Path) -> None:
    weights = load_file(folder / "adapter_model.safetensors")
    next(iter(weights.values())).fill_(float("nan"))
    save_file(weights, folder / "adapter_model.safetensors")


def says(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    write_json(path, json.loads(path.read_text()) | changes)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (nan, "numbers that are not finite"),
        (partial(says, r=3), "call for"),
        (partial(says, base_model_name_or_path="a" * 64), "made for the base aaaaaaaaaaaa"),
        (partial(says, use_dora=True), "DoRA is not supported"),
        (partial(says, rank_pattern={"(.*)*x": 4}), "is not supported"),
        (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"\xff" * 20_000), "not a whole safetensors file"),
        (shutil.rmtree, "cannot be read"),
    ],
)
def test_a_bad_adapter_fails_its_request_and_no_other(
    base: Path, folders: list[Path], tmp_path: Path, spoil: Callable[[Path], Any], message: str
) -> None:
    bad = tiny_adapter(tmp_path / "bad", base)
    spoil(bad)
    engine = an_engine(base)
    digest = {"base": "b" * 64}
    requests = [ask(folders[0], **digest), ask(bad, **digest), ask(**digest)]

    for request, folder in zip(requests, (folders[0], bad, None), strict=True):
        engine.submit(request, adapter_folder=folder)
    good, failed, plain = outcomes(finish(engine), requests)

    assert (failed.finished.reason, failed.finished.failure) == (FinishReason.ERROR, FailureCode.ADAPTER_UNAVAILABLE)
    assert message in failed.finished.message
    assert [good.text, plain.text] == [alone(base, folders[0]), alone(base, None)]
    assert (engine.stats()["adapters"], engine.stats()["adapters_in_use"], engine.stats()["blocks_used"]) == (1, 0, 0)


def test_an_adapter_too_strong_for_its_base_fails_its_request_and_no_other(base: Path, folders: list[Path], tmp_path: Path) -> None:
    violent = tiny_adapter(tmp_path / "violent", base)
    weights = {name: weight * 1e30 for name, weight in load_file(violent / "adapter_model.safetensors").items()}
    save_file(weights, violent / "adapter_model.safetensors")
    engine = an_engine(base)
    adapters = [*folders[:4], violent]
    requests = [ask(adapter, max_tokens=40) for adapter in adapters]

    for request, folder in zip(requests, adapters, strict=True):
        engine.submit(request, adapter_folder=folder)
    *good, failed = outcomes(finish(engine), requests)

    assert (failed.finished.reason, failed.finished.failure) == (FinishReason.ERROR, FailureCode.INTERNAL)
    assert texts(good) == [alone(base, folder, max_tokens=40) for folder in folders[:4]]


def test_an_adapter_replaced_where_it_lies_changes_no_stream_under_way(base: Path, tmp_path: Path) -> None:
    old, new = (tiny_adapter(tmp_path / name, base, seed=seed) for name, seed in (("old", 1), ("new", 2)))
    place = tmp_path / "place"
    shutil.copytree(old, place)
    engine = an_engine(base)
    before = a_request(adapter="1" * 64, max_tokens=40)
    engine.submit(before, adapter_folder=place)
    events: list[tuple[str, Any]] = []
    while sum(id_ == before.id for id_, _ in events) < 4:
        events += engine.step()

    for file in new.iterdir():
        shutil.copy(file, tmp_path / "arriving")
        (tmp_path / "arriving").rename(place / file.name)
    after = a_request(adapter="2" * 64, max_tokens=40)
    engine.submit(after, adapter_folder=place)

    first, second = outcomes(events + finish(engine), [before, after])
    assert first.text == alone(base, old, max_tokens=40)
    assert second.text == alone(base, new, max_tokens=40)
    assert second.finished.usage["cached_tokens"] == 0


def test_more_adapters_at_once_than_fit_wait_for_each_other(base: Path, folders: list[Path], adapter_bytes: int) -> None:
    engine = an_engine(base, adapter_bytes=2 * adapter_bytes)
    requests = [ask(folder, max_tokens=6) for folder in folders]

    for request, folder in zip(requests, folders, strict=True):
        engine.submit(request, adapter_folder=folder)
    found = outcomes(watched(engine, most_bytes=2 * adapter_bytes), requests)

    assert texts(found) == [alone(base, folder, max_tokens=6) for folder in folders]
    assert engine.stats()["adapter_evictions"] >= 6


def watched(engine: EngineCore, *, most_bytes: int) -> list[tuple[str, Any]]:
    events = []
    while engine.has_work:
        events += engine.step()
        assert engine.stats()["adapter_bytes"] <= most_bytes
    return events


@pytest.mark.parametrize("seed", range(3))
def test_whatever_ends_requests_at_random_moments_nothing_is_left_behind(
    base: Path, folders: list[Path], adapter_bytes: int, tmp_path: Path, seed: int
) -> None:
    """Cancelled, late, failed and preempted ones among others, with room for few adapters and few blocks."""
    chance = random.Random(seed)
    bad = tiny_adapter(tmp_path / "bad", base)
    nan(bad)
    sources: list[Path | None] = [*folders, bad, None]
    engine = an_engine(base, cache_tokens=400, max_batch_tokens=48, adapter_bytes=3 * adapter_bytes)
    asked: list[tuple[GenerationRequest, Path | None, str]] = []
    events: list[tuple[str, Any]] = []

    while len(asked) < 60 or engine.has_work:
        if len(asked) < 60 and engine.has_room and chance.random() < 0.6:
            source, text = chance.choice(sources), chance.choice(("Hello!", "Tell me " * 20, "rate it"))
            request = ask(source, text, max_tokens=chance.randint(1, 60), deadline=time.time() + chance.choice([0.01, 600, 600, 600]))
            engine.submit(request, adapter_folder=source)
            asked.append((request, source, text))
        if asked and chance.random() < 0.1:
            engine.cancel(chance.choice(asked)[0].id)
        events += engine.step()

    found = outcomes(events, [request for request, _, _ in asked])
    for (request, source, text), outcome in zip(asked, found, strict=True):
        if source == bad:
            assert outcome.finished.reason in (FinishReason.ERROR, FinishReason.CANCELLED, FinishReason.DEADLINE)
        elif outcome.finished.reason == FinishReason.LENGTH:
            assert outcome.text == alone(base, source, text, max_tokens=request.sampling["max_tokens"])
        else:
            assert outcome.finished.reason in (FinishReason.CANCELLED, FinishReason.DEADLINE)
    wait_until(lambda: engine.stats()["adapters_loading"] == 0, within_s=10)
    stats = engine.stats()
    assert (stats["running"], stats["waiting"], stats["loading"], stats["blocks_used"], stats["adapters_in_use"]) == (0, 0, 0, 0, 0)
    assert stats["adapter_bytes"] == stats["adapters"] * adapter_bytes <= 3 * adapter_bytes
    assert sum(outcome.finished.reason == FinishReason.LENGTH for outcome in found) > 20


def test_a_thousand_adapters_are_served_with_room_for_a_hundred(base: Path, tmp_path: Path, adapter_bytes: int) -> None:
    folders = [tiny_adapter(tmp_path / f"adapter-{number}", base, seed=number) for number in range(1000)]
    engine = an_engine(base, adapter_bytes=100 * adapter_bytes, max_waiting=64)
    popularity = [1 / (rank + 1) for rank in range(1000)]
    asked = random.Random(7).choices(folders, popularity, k=600)
    waiting = [(ask(folder, max_tokens=3), folder) for folder in asked]
    sent: dict[str, Path] = {}
    events: list[tuple[str, Any]] = []

    while waiting or engine.has_work:
        while waiting and engine.has_room:
            request, folder = waiting.pop()
            engine.submit(request, adapter_folder=folder)
            sent[request.id] = folder
        events += engine.step()
        assert engine.stats()["adapter_bytes"] <= 100 * adapter_bytes

    ended = [event for _, event in events if isinstance(event, Finished)]
    assert [event.reason for event in ended] == [FinishReason.LENGTH] * 600
    stats = engine.stats()
    assert stats["adapter_loads"] > len(set(asked)) > 200
    assert stats["adapter_evictions"] == stats["adapter_loads"] - stats["adapters"] > 100
    assert stats["adapter_hits"] > 100
    assert (stats["adapters"], stats["adapters_in_use"], stats["loading"], stats["blocks_used"]) == (100, 0, 0, 0)
    for request_id, folder in list(sent.items())[::40]:
        text = Outcome([event for id_, event in events if id_ == request_id]).text
        assert text == alone(base, folder, max_tokens=3)
