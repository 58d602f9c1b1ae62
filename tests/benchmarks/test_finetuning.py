"""The proof that the demo's fine-tune changes the model, on a tiny one: it trains, compares the same examples and asks PEFT."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import finetuning
from inference.checkpoint import load_gpt
from inference.examples import Example
from inference.intervals import Interval
from inference.lora import Adapter
from inference.lora_batch import LoraBatch
from tests.inference.job_bench import chat_file, chat_line
from tests.inference.tiny import tiny_adapter, tiny_base

RECIPE = {"rank": 4, "epochs": 8, "batch_size": 4, "learning_rate": 5e-3, "max_length": 128, "validation_share": 0.2}
CARD = "**Kiln**\nA kiln is an oven.\nExample: It is hot.\nSee also: clay, glaze"


def test_a_seed_is_trained_and_told_with_its_interval_and_its_distance_from_peft(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, data = tiny_base(tmp_path / "base"), chat_file(tmp_path / "data.jsonl")
    held_out = chat_file(
        tmp_path / "held_out.jsonl", [chat_line(f"Where is {c}?", f"{c} is in {c}land.") for c in ("Rome", "Cork", "Graz")]
    )
    recipe, found = tmp_path / "recipe.json", tmp_path / "found.json"
    recipe.write_text(json.dumps(RECIPE))

    options = ["--seeds", "3", "--threads", "1", "--answers", "1", "--data", data, "--held-out", held_out, "--recipe", recipe]
    finetuning.main([str(folder), *map(str, options), "--json", str(found)])

    (outcome,) = json.loads(found.read_text())["outcomes"]
    assert (outcome["seed"], outcome["examples"], outcome["compared"], len(outcome["said"])) == (3, 3, 3, 1)
    assert outcome["change"] == pytest.approx(outcome["loss"] - outcome["base_loss"])
    assert outcome["interval"]["low"] <= outcome["change"] <= outcome["interval"]["high"] < 0
    assert outcome["furthest_logit"] < 1e-3
    assert outcome["run"]["steps"] == 16
    assert "The interval excludes 0 for 1 of 1 seeds." in capsys.readouterr().out


def test_another_adapter_than_the_one_peft_reads_is_seen_in_the_logits(tmp_path: Path) -> None:
    folder = tiny_base(tmp_path / "base")
    ours, theirs = (tiny_adapter(tmp_path / f"adapter-{seed}", folder, seed=seed) for seed in (1, 2))
    model, example = load_gpt(folder, dtype=torch.float32), Example(tokens=(1, 5, 9, 12), trained=(False, True, True, True))
    lora = LoraBatch.for_all(Adapter.load(ours, model.config))

    same, another = (finetuning.furthest_from_peft(folder, adapter, model, lora, [example]) for adapter in (ours, theirs))

    assert same < 1e-3
    assert another > 0.1


@pytest.mark.parametrize(("low", "high", "certain"), [(-0.9, -0.1, True), (0.1, 0.2, True), (-0.1, 0.1, False), (-0.1, 0.0, False)])
def test_a_difference_is_certain_when_its_interval_excludes_nothing_at_all(low: float, high: float, certain: bool) -> None:
    outcome = finetuning.Outcome(
        seed=1,
        base_loss=1,
        loss=1,
        change=0,
        interval=Interval(low, high),
        better=0,
        examples=1,
        said=[],
        furthest_logit=0,
        compared=0,
        run={},
    )

    assert outcome.is_certain == certain


def test_an_answer_has_the_form_only_as_a_whole() -> None:
    assert finetuning.in_form([CARD, CARD + "\n", CARD.replace("See also", "See"), f"Well. {CARD}", CARD + "\nMore."]) == 2
