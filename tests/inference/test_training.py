"""A fine-tune: what it learns, that packing changes nothing, that it resumes bit for bit, and that PEFT reads the result."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from inference import batching, training
from inference.attention import CausalAttention
from inference.batching import losses, pack, split
from inference.checkpoint import load_gpt
from inference.config import GPTConfig
from inference.datasets import Example, load_examples
from inference.job_process import Cancelled, JobError, Paused
from inference.lora import Adapter
from inference.lora_batch import LoraBatch
from inference.objectives import Supervised
from inference.recipe import Recipe
from inference.tokenizer import Tokenizer
from inference.trainable import TrainableLora
from inference.training import run
from tests.inference.job_bench import CITIES, PREFERENCES, Place, Told, chat_line


@pytest.fixture
def place(tmp_path: Path) -> Place:
    torch.set_num_threads(1)
    return Place(tmp_path)


def test_the_loss_falls_in_training_and_on_what_was_held_out(place: Place) -> None:
    told = Told()

    result = run(place.finetune(), place.bench(told, segment_s=60))

    assert (result["steps"], result["examples"], result["held_out"]) == (8, 8, 2)
    assert [event["step"] for event in told.events] == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    assert told.events[-1]["loss"] < told.events[1]["loss"] - 0.3
    assert result["validation_loss"] < result["base_validation_loss"] - 0.3
    assert set(told.events[-1]) == {"step", "loss", "learning_rate", "grad_norm", "tokens_per_s", "validation_loss"}


class AwayAtFirst(Told):
    """The store answers the first segment late."""

    def segment(self, **segment: Any) -> None:
        if not self.segments:
            time.sleep(2)
        super().segment(**segment)


def test_a_store_that_was_away_makes_the_next_segment_no_longer(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    told = AwayAtFirst()
    monkeypatch.setattr(training, "TIMES_SAVING", 0.1)  # so that a slow disk makes no difference, and the wait would

    run(place.finetune(changes={"batch_size": 1, "epochs": 5}), place.bench(told, segment_s=1e-3))

    first, second, *_rest = told.segments
    assert len(second["events"]) < 20
    assert sum(len(segment["events"]) for segment in told.segments) == 41


def test_an_adapter_takes_its_first_step_before_its_base_is_measured_without_it(place: Place, tmp_path: Path) -> None:
    told = Told()
    task = place.finetune(changes={"learning_rate": 1e-2, "epochs": 8})

    result = run(task, place.bench(told, segment_s=60))

    stages = [said["stage"] for said in told.said]
    assert stages.index("training") < stages.index("validating")
    assert [said["events"][0]["step"] for said in told.said if said.get("events")][:2] == [1, 0]
    model, tokenizer = load_gpt(tmp_path / "base", dtype=torch.float32), Tokenizer.from_folder(tmp_path / "base")
    examples = load_examples(tmp_path / "data.jsonl", tokenizer, max_length=128)
    _, held_out = split(examples, Recipe.from_json(task.params["settings"]))
    assert result["base_validation_loss"] == pytest.approx(batching.mean_loss(model, held_out, None, after_pass=lambda: None), rel=1e-6)


def test_an_adapter_is_not_refused_for_logits_that_are_never_there_at_once(place: Place) -> None:
    bench = replace(place.bench(Told()), memory_bytes=18 * 2**20)  # all logits of a pass would be 5 of them

    with pytest.raises(JobError, match="may use 18 MB") as refused:
        run(place.finetune(changes={"scope": "weights"}), bench)

    assert refused.value.code == "out_of_memory"
    assert run(place.finetune(), bench)["steps"] == 8


def test_packed_examples_have_the_losses_they_have_alone(place: Place, tmp_path: Path) -> None:
    folder = tmp_path / "base"
    model = load_gpt(folder, dtype=torch.float32)
    examples = load_examples(tmp_path / "data.jsonl", Tokenizer.from_folder(folder), max_length=128)

    together = losses(model, pack(examples), None)

    alone = torch.cat([losses(model, pack([example]), None) for example in examples])
    assert len(together) == sum(example.trained_tokens for example in examples)
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_a_packed_example_neither_sees_nor_is_moved_by_its_neighbours(place: Place, tmp_path: Path) -> None:
    model = load_gpt(tmp_path / "base", dtype=torch.float32)
    others = [Example(tuple(range(start, start + 30)), (True,) * 30) for start in (3, 200)]
    mine = Example(tuple(range(100, 140)), (True,) * 40)

    before, after = (losses(model, pack([other, mine, other]), None) for other in others)

    assert torch.equal(before[29:68], after[29:68])
    assert not torch.equal(before[:29], after[:29])
    assert len(before) == 29 + 39 + 29  # nobody's first token is said by who stands before


@pytest.mark.parametrize("pass_tokens", [1, 40, 100_000])
def test_the_loss_of_a_step_is_the_mean_over_all_its_trained_tokens_however_they_are_packed(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pass_tokens: int
) -> None:
    model = load_gpt(tmp_path / "base", dtype=torch.float32)
    lengths = [5, 60, 9, 33, 2, 17]
    examples = [Example(tuple(range(3, 3 + n)), (False,) * (n // 3) + (True,) * (n - n // 3)) for n in lengths]
    expected = torch.cat([losses(model, pack([example]), None) for example in examples]).mean()
    monkeypatch.setattr(batching, "PASS_TOKENS", pass_tokens)

    parts = [float(part.detach()) for part in Supervised(model, TrainableLora(model, Recipe()), examples, []).parts(range(6))]

    assert len(parts) == {1: 6, 40: 5, 100_000: 1}[pass_tokens]
    assert sum(parts) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("changes", [{"dropout": 0.1}, {"scope": "weights", "learning_rate": 2e-3}, {"method": "preference"}], ids=str)
def test_a_run_cut_into_segments_ends_with_the_same_bits_as_one_without_a_break(place: Place, changes: dict[str, Any]) -> None:
    if "method" in changes:
        place.data = place.put_data(json.dumps(row).encode() for row in PREFERENCES)
    whole = run(place.finetune(changes=changes), place.bench(Told(), segment_s=60))

    checkpoint, segment, result = None, 0, None
    while result is None:
        told = Told(pause_at=1)
        task = place.finetune(job="job_b", changes=changes, checkpoint=checkpoint, segment=segment)
        try:
            result = run(task, place.bench(told))
        except Paused:
            checkpoint, segment = told.segments[-1]["checkpoint"], segment + 1

    assert segment == 8
    assert place.learned_bytes(result["manifest"]) == place.learned_bytes(whole["manifest"])
    measured = ("train_loss", "validation_loss", "base_validation_loss", "validation_accuracy", "best_step", "tokens")
    assert {name: result[name] for name in measured} == {name: whole[name] for name in measured}


def test_a_result_names_what_computed_it_and_what_it_was_gone_on_with(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(pause_at=1)
    with pytest.raises(Paused):
        run(place.finetune(), place.bench(told))
    resumed = place.finetune(checkpoint=told.segments[0]["checkpoint"], segment=1)

    same = run(resumed, place.bench(Told(), segment_s=60))["computed_by"]
    told = Told(pause_at=1)
    with pytest.raises(Paused):
        run(place.finetune(), place.bench(told))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    other = run(resumed, place.bench(Told(), segment_s=60))["computed_by"]

    assert len(same) == 1
    assert (other[0], len(other)) == (same[0], 2)
    assert f"torch {torch.__version__}" in other[1]
    assert other[1].endswith("processes: 1, threads: 7")


def test_only_the_current_checkpoint_is_kept(place: Place) -> None:
    told = Told()

    run(place.finetune(), place.bench(told))

    kept = [place.artifacts.has(segment["checkpoint"]) for segment in told.segments]
    assert kept == [False] * 7 + [True]


def test_a_checkpoint_of_another_job_is_refused(place: Place) -> None:
    told = Told()
    run(place.finetune(), place.bench(told))

    with pytest.raises(JobError) as refused:
        run(place.finetune(job="job_b", checkpoint=told.segments[-1]["checkpoint"]), place.bench(Told()))

    assert refused.value.code == "checkpoint_unusable"


@pytest.mark.parametrize("changes", [{}, {"rank_stabilised": True}, {"targets": "attention"}])
def test_the_result_gives_peft_and_our_own_reader_the_same_logits(place: Place, tmp_path: Path, changes: dict[str, Any]) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    result = run(place.finetune(changes=changes), place.bench(Told(), segment_s=60))
    adapter, base = place.artifacts.materialise(result["manifest"], place.cache), tmp_path / "base"
    tokens, positions, attention = torch.arange(5, 60), torch.arange(55), CausalAttention([55])

    with torch.no_grad():
        theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)(tokens[None]).logits[0]
        model = load_gpt(base, dtype=torch.float32)
        loaded = Adapter.load(adapter, GPTConfig.from_folder(base))
        ours = model.logits(model(tokens, positions, attention, LoraBatch.for_all(loaded)))
        bare = model.logits(model(tokens, positions, attention))

    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert (ours - bare).abs().max() > 0.1


def test_accumulating_over_several_passes_gives_the_gradient_of_one(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_gpt(tmp_path / "base", dtype=torch.float32)
    examples = load_examples(tmp_path / "data.jsonl", Tokenizer.from_folder(tmp_path / "base"), max_length=128)
    count = sum(example.trained_tokens for example in examples)

    def gradients() -> list[torch.Tensor]:
        lora = TrainableLora(model, Recipe())
        for group in batching.passes(examples):
            (losses(model, pack(group), lora).sum() / count).backward()
        return [parameter.grad for parameter in lora.up if parameter.grad is not None]

    one = gradients()
    monkeypatch.setattr(batching, "PASS_TOKENS", 40)
    many = gradients()

    assert len(one) == 14
    for a, b in zip(one, many, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_a_run_that_no_longer_gets_better_ends_early_with_its_best(place: Place) -> None:
    told = Told()

    result = run(place.finetune(changes={"epochs": 50, "learning_rate": 0.05, "patience": 2}), place.bench(told, segment_s=60))

    judged = [(event["step"], event["validation_loss"]) for event in told.events if event["step"] and "validation_loss" in event]
    best = min(range(len(judged)), key=lambda at: judged[at][1])
    assert len(judged) == best + 3
    assert (result["ended_early"], result["steps"]) == (True, judged[-1][0])
    assert (result["best_step"], result["validation_loss"]) == judged[best]
    assert told.segments[-1]["done"] == 1.0


def test_adapters_beside_the_attention_alone_leave_the_rest_untouched(place: Place) -> None:
    result = run(place.finetune(changes={"targets": "attention"}), place.bench(Told(), segment_s=60))

    settings = json.loads((place.artifacts.materialise(result["manifest"], place.cache) / "adapter_config.json").read_text())
    assert settings["target_modules"] == ["k_proj", "o_proj", "q_proj", "v_proj"]


@pytest.mark.parametrize("name", ["method", "targets"])
def test_a_value_the_worker_does_not_know_is_refused_by_name(name: str) -> None:
    with pytest.raises(JobError, match="does not know") as refused:
        Recipe.from_json({name: "other"})

    assert refused.value.code == "setting_unknown"


def test_the_rate_rises_then_falls_along_a_cosine() -> None:
    recipe = Recipe(learning_rate=1.0)

    rates = [recipe.rate(step, 100) for step in range(100)]

    assert rates[:6] == [0.2, 0.4, 0.6, 0.8, 1.0, 1.0]
    assert all(a > b for a, b in pairwise(rates[5:]))
    assert 0.1 < rates[-1] < 0.101


def test_what_is_held_out_depends_on_the_seed_alone(place: Place, tmp_path: Path) -> None:
    examples = load_examples(tmp_path / "data.jsonl", Tokenizer.from_folder(tmp_path / "base"), max_length=128)

    train, held_out = split(examples, Recipe(seed=7))

    assert (len(train), len(held_out)) == (9, 1)
    assert split(examples, Recipe(seed=7)) == (train, held_out)
    assert split(examples[:1], Recipe()) == (examples[:1], [])


def test_what_the_model_cannot_reach_is_left_out_whatever_the_settings_allow(tmp_path: Path) -> None:
    place = Place(tmp_path, context=64)
    place.data = place.put_data([*(chat_line(f"Where is {c}?", "There.") for c in CITIES), chat_line("x " * 60, "y")])

    result = run(place.finetune(changes={"max_length": 4096}), place.bench(Told(), segment_s=60))

    assert result["examples"] + result["held_out"] == 10


def test_a_bad_line_ends_the_job_with_its_place(place: Place) -> None:
    place.data = place.put_data([chat_line("Hello?", "Hello."), b'{"messages": [}'])

    with pytest.raises(JobError) as refused:
        run(place.finetune(), place.bench(Told()))

    assert refused.value.code == "data_unusable"
    assert (refused.value.detail["line"], refused.value.detail["code"], refused.value.retriable) == (2, "not_json", False)


def test_a_cancelled_run_stops_at_once_and_offers_nothing(place: Place) -> None:
    told = Told()
    told.cancelled = True

    with pytest.raises(Cancelled):
        run(place.finetune(), place.bench(told))

    assert told.segments == []


def test_a_loss_that_is_no_number_ends_the_job_and_reports_no_such_number(place: Place) -> None:
    told = Told()

    with pytest.raises(JobError) as ended:
        run(place.finetune(changes={"learning_rate": 1e36}), place.bench(told))

    assert ended.value.code == "diverged"
    assert "NaN" not in json.dumps([told.segments, told.said])


def test_a_checkpoint_is_safetensors_and_json(place: Place) -> None:
    told = Told(pause_at=1)

    with pytest.raises(Paused):
        run(place.finetune(), place.bench(told))

    folder = place.artifacts.materialise(told.segments[0]["checkpoint"], place.cache)
    names = {"best.safetensors", "optimiser.safetensors", "state.json", "weights.safetensors"}
    assert {file.name for file in folder.iterdir()} == names
    assert json.loads((folder / "state.json").read_text())["step"] == 1
    assert told.segments[0]["done"] == 1 / 8
