"""What is shown of a run on its way: answers to fixed prompts and a copy of the adapter, neither of which changes what is learned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from inference import training
from inference.checkpoint import described
from inference.held_out import held_out
from inference.job_process import Cancelled, Paused
from inference.protocol import MAX_SAMPLE_PROMPTS, JobTask
from inference.samples import OPENING_TOKENS, SAMPLE_TOKENS
from inference.tokenizer import Tokenizer
from inference.training import run
from tests.inference.asking import a_request, an_engine, texts
from tests.inference.asking import run as ask
from tests.inference.job_bench import CITIES, PREFERENCES, SETTINGS, Place, Told

ASKED = ["Where is Paris?", "你好"]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def asking(place: Place, prompts: list[str], **fields: Any) -> JobTask:
    task = place.finetune(**fields)
    task.params["prompts"] = prompts
    return task


def shown(told: Told) -> list[dict[str, Any]]:
    """The events with samples, without how fast it went."""
    return [{name: told for name, told in event.items() if name != "tokens_per_s"} for event in told.events if "samples" in event]


def answers_of(place: Place, adapter: str | None) -> list[str]:
    """Those of an engine."""
    engine = an_engine(place.folder / "base")
    found = {} if adapter is None else {"adapter_folder": place.artifacts.materialise(adapter, place.cache)}
    requests = [a_request(text, max_tokens=SAMPLE_TOKENS, adapter=adapter) for text in ASKED]
    return texts(ask(engine, *requests, **found))


def test_samples_are_what_the_base_and_then_each_snapshot_answers(place: Place) -> None:
    told = Told()

    result = run(asking(place, ASKED), place.bench(told, segment_s=60))

    began, *later = shown(told)
    assert (began["step"], began["prompts"], "snapshot" in began) == (0, ASKED, False)
    assert began["samples"] == answers_of(place, None)
    assert [event["step"] for event in later] == [1, 2, 3, 4, 5, 6, 7, 8]
    for event in (later[0], later[-1]):
        assert event["samples"] == answers_of(place, event["snapshot"])
    assert later[-1]["samples"] != began["samples"]
    assert next(event["snapshot"] for event in later if event["step"] == result["best_step"]) == result["manifest"]


def test_of_all_weights_each_copy_is_a_model_that_answers_as_it_did_then(place: Place) -> None:
    told = Told()

    result = run(asking(place, ASKED, changes={"scope": "weights", "learning_rate": 2e-3}), place.bench(told, segment_s=60))

    later = shown(told)[1:]
    folder = place.artifacts.materialise(later[0]["snapshot"], place.cache)
    requests = [a_request(text, max_tokens=SAMPLE_TOKENS) for text in ASKED]
    assert later[0]["samples"] == texts(ask(an_engine(folder), *requests))
    assert described(folder) == result["facts"]
    assert len({event["snapshot"] for event in later}) == 8
    assert next(event["snapshot"] for event in later if event["step"] == result["best_step"]) == result["manifest"]


@pytest.mark.parametrize("changes", [{"dropout": 0.1}, {"scope": "weights", "learning_rate": 2e-3}, {"method": "preference"}], ids=str)
def test_a_run_that_is_looked_at_ends_with_the_bits_of_one_that_is_not(place: Place, changes: dict[str, Any]) -> None:
    if "method" in changes:
        place.data = place.put_data(json.dumps(row).encode() for row in PREFERENCES)
    unseen = run(place.finetune(changes=changes), place.bench(Told(), segment_s=60))

    told = Told()
    seen = run(asking(place, [], changes=changes), place.bench(told, segment_s=60))

    assert place.learned_bytes(seen["manifest"]) == place.learned_bytes(unseen["manifest"])
    assert len(shown(told)) == 9
    assert all("snapshot" in event for event in shown(told)[1:])


def test_a_run_that_goes_on_shows_what_one_without_a_break_would(place: Place) -> None:
    whole = Told()
    run(asking(place, ASKED), place.bench(whole, segment_s=60))

    first, second = Told(pause_at=3), Told()
    with pytest.raises(Paused):
        run(asking(place, ASKED), place.bench(first))
    run(asking(place, ASKED, checkpoint=first.segments[-1]["checkpoint"], segment=3), place.bench(second, segment_s=60))

    assert shown(first) + shown(second) == shown(whole)


def test_without_prompts_of_ones_own_those_of_held_out_examples_are_asked(place: Place) -> None:
    told, all_trained = Told(), Told()
    aside = [f"Where is {CITIES[at]}?" for at in sorted(held_out(len(CITIES), share=SETTINGS["validation_share"], seed=1))]

    run(asking(place, [], changes={"epochs": 1}), place.bench(told, segment_s=60))
    run(asking(place, [], changes={"epochs": 1, "validation_share": 0.0}), place.bench(all_trained, segment_s=60))

    assert shown(told)[0]["prompts"] == aside
    assert shown(all_trained)[0]["prompts"] == [f"Where is {city}?" for city in CITIES[:MAX_SAMPLE_PROMPTS]]
    assert "validation_loss" not in shown(all_trained)[-1]


def test_a_text_is_gone_on_with_from_its_beginning(place: Place) -> None:
    place.data = place.put_data(json.dumps({"text": f"{city} lies in {city}land. " * 6}).encode() for city in CITIES)
    own, of_data = Told(), Told()
    opening = "Rome lies on seven hills, and all roads, they say, go there; but"

    run(asking(place, [opening], changes={"method": "text", "epochs": 1}), place.bench(own, segment_s=60))
    run(asking(place, [], changes={"method": "text", "epochs": 1}), place.bench(of_data, segment_s=60))

    assert shown(own)[0]["prompts"] == [opening]
    assert 0 < len(shown(of_data)[0]["prompts"]) <= MAX_SAMPLE_PROMPTS
    tokenizer = Tokenizer.from_folder(place.folder / "base")
    beginnings = {tokenizer.decode(tokenizer.encode_plain(f"{city} lies in {city}land. " * 6)[:OPENING_TOKENS]) for city in CITIES}
    assert set(shown(of_data)[0]["prompts"]) <= beginnings


def test_what_the_model_has_no_room_for_is_not_asked_and_said(tmp_path: Path) -> None:
    place, told, none = Place(tmp_path, context=96), Told(), Told()
    long = "Hello " * 40

    run(asking(place, [long, "Hi"], changes={"epochs": 1, "max_length": 96}), place.bench(told, segment_s=60))
    run(asking(place, [long], changes={"epochs": 1, "max_length": 96}), place.bench(none, segment_s=60))

    assert (shown(told)[0]["prompts"], shown(told)[0]["unasked"]) == (["Hi"], [long])
    assert (shown(none)[0]["prompts"], shown(none)[0]["unasked"]) == ([], [long])
    assert "snapshot" in shown(none)[-1]


def test_an_answer_holds_no_character_that_is_none_of_a_text(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tokenizer, "decode", lambda self, tokens: "a\x00b\x1bc\n")
    told = Told()

    run(asking(place, ASKED, changes={"epochs": 1}), place.bench(told, segment_s=60))

    assert shown(told)[-1]["samples"] == ["a\ufffdb\ufffdc\n"] * 2


def test_a_run_that_goes_on_asks_what_it_began_with(place: Place) -> None:
    first, second = Told(pause_at=3), Told()
    with pytest.raises(Paused):
        run(asking(place, ASKED), place.bench(first))

    run(asking(place, ["Something else"], checkpoint=first.segments[-1]["checkpoint"], segment=3), place.bench(second, segment_s=60))

    whole = Told()
    run(asking(place, ASKED), place.bench(whole, segment_s=60))
    assert [event["samples"] for event in shown(second)] == [event["samples"] for event in shown(whole)[4:]]


@pytest.mark.parametrize("scope", ["adapter", "weights"])
def test_of_what_is_large_fewer_copies_are_kept_and_always_the_last(place: Place, monkeypatch: pytest.MonkeyPatch, scope: str) -> None:
    told, few, changes = Told(), Told(), {"scope": scope}
    result = run(asking(place, ASKED, changes=changes), place.bench(told, segment_s=60))
    size = result["trained_parameters"] * 4

    monkeypatch.setattr(training, "SNAPSHOT_BYTES", 4 * size)
    run(asking(place, ASKED, changes=changes), place.bench(few, segment_s=60))

    assert [event["step"] for event in shown(told) if "snapshot" in event] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [event["step"] for event in shown(few) if "snapshot" in event] == [3, 6, 8]


def test_a_cancelled_run_stops_between_two_tokens_of_a_sample(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told()
    said = Told.progress

    def cancel(self: Told, stage: str, **facts: Any) -> None:
        said(self, stage, **facts)
        self.cancelled = stage == "answering"

    monkeypatch.setattr(Told, "progress", cancel)

    with pytest.raises(Cancelled):
        run(asking(place, ASKED), place.bench(told, segment_s=60))

    assert told.said[-1]["stage"] == "answering"
    assert torch.is_grad_enabled()
