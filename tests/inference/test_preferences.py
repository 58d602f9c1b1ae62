"""Learning from preferences: the loss of the DPO paper, from where the run starts, and what comes of it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from inference.checkpoint import load_gpt
from inference.datasets import Example, Pair, encode
from inference.job_process import JobError
from inference.objectives import Preference
from inference.recipe import Recipe, Scope
from inference.tokenizer import Tokenizer
from inference.trainable import TrainableLora
from inference.training import Training, run
from tests.inference.job_bench import CITIES, PREFERENCES, SETTINGS, Place, Told

RECIPE = Recipe.from_json({**SETTINGS, "method": "preference", "learning_rate": 1e-2})


@pytest.fixture
def place(tmp_path: Path) -> Place:
    torch.set_num_threads(1)
    return Place(tmp_path)


def answer(tokenizer: Tokenizer, question: str, said: str) -> Example:
    return encode([{"role": "user", "content": question}, {"role": "assistant", "content": said}], tokenizer)


def pairs_of(place: Place) -> list[Pair]:
    """The short answer is preferred to the long one."""
    tokenizer = Tokenizer.from_folder(place.folder / "base")
    asked = [(f"Where is {city}?", f"In {city}land.", f"Well, {city} is, as one says, in {city}land, I believe.") for city in CITIES]
    return [Pair(answer(tokenizer, question, short), answer(tokenizer, question, long)) for question, short, long in asked]


def training(place: Place, told: Told, recipe: Recipe = RECIPE, *, segment_s: float = 60, **fields: Any) -> Training:
    folder = place.folder / "base"
    model, bench = load_gpt(folder, dtype=torch.float32), place.bench(told, segment_s=segment_s)
    return Training(place.finetune(**fields), bench, recipe=recipe, model=model, examples=pairs_of(place), source=folder)


@pytest.mark.parametrize("scope", ["adapter", "weights"])
def test_the_first_loss_is_ln_2(place: Place, scope: str) -> None:
    told = Told()
    learning = training(place, told, replace(RECIPE, scope=Scope(scope)))

    learning.begin()
    learning.to_the_end()

    assert told.events[0]["validation_loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert told.events[1]["loss"] == pytest.approx(math.log(2), abs=1e-6)


def test_the_chosen_answers_become_the_likelier_ones(place: Place) -> None:
    told = Told()
    learning = training(place, told)

    learning.begin()
    learning.to_the_end()
    result = learning.result()

    assert told.events[-1]["loss"] < 0.4
    assert result["validation_loss"] < result["base_validation_loss"] - 0.1
    assert (result["base_validation_loss"], result["validation_accuracy"]) == (pytest.approx(math.log(2), abs=1e-6), 1.0)


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_a_job_learns_them_from_a_file(place: Place, form: str) -> None:
    table = ["prompt,chosen,rejected", *(",".join(row.values()) for row in PREFERENCES)]
    place.data = place.put_data(line.encode() for line in (table if form == "csv" else map(json.dumps, PREFERENCES)))
    task = place.finetune(changes={"method": "preference"})

    result = run(replace(task, params={**task.params, "name": f"cities.{form}"}), place.bench(Told(), segment_s=60))

    assert (result["examples"], result["held_out"]) == (8, 2)
    assert result["validation_loss"] < result["base_validation_loss"]


def test_the_loss_is_that_of_the_paper_with_the_logits_of_transformers(place: Place, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    learning = training(place, Told())
    learning.begin()
    learning.to_the_end()
    adapter = place.artifacts.materialise(learning.result()["manifest"], place.cache)
    start = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    pair = pairs_of(place)[3]

    def log_probability(model: torch.nn.Module, side: Example) -> torch.Tensor:
        tokens = torch.tensor([list(side.tokens)])
        of_tokens = F.log_softmax(model(tokens).logits[0, :-1], dim=-1).gather(1, tokens[0, 1:, None])[:, 0]
        return (of_tokens * torch.tensor(list(side.trained[1:]))).sum()

    with torch.no_grad():
        before = log_probability(start, pair.chosen) - log_probability(start, pair.rejected)
        trained = PeftModel.from_pretrained(start, adapter)
        after = log_probability(trained, pair.chosen) - log_probability(trained, pair.rejected)
    theirs = -F.logsigmoid(RECIPE.beta * (after - before))

    model = load_gpt(tmp_path / "base", dtype=torch.float32)
    lora = TrainableLora(model, RECIPE)
    ours = Preference(model, lora, [pair], [], beta=RECIPE.beta)
    ours.begin(lambda: None)
    lora.restore(learning._best or {})
    (loss,) = ours.parts([0])
    torch.testing.assert_close(loss.detach(), theirs, rtol=1e-4, atol=1e-5)


def test_the_losses_of_pairs_do_not_depend_on_how_they_are_grouped(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_gpt(place.folder / "base", dtype=torch.float32)
    lora = TrainableLora(model, RECIPE)
    objective = Preference(model, lora, pairs_of(place), [], beta=1.0)
    objective.begin(lambda: None)
    for parameter in lora.up:
        torch.nn.init.normal_(parameter, std=0.2, generator=torch.Generator().manual_seed(1))

    together = sum(float(part.detach()) for part in objective.parts(range(10)))
    monkeypatch.setattr("inference.objectives.PASS_TOKENS", 1)
    alone = [float(part.detach()) for part in objective.parts(range(10))]

    assert len(alone) == 10
    assert together == pytest.approx(sum(alone), rel=1e-5)
    assert together != pytest.approx(math.log(2), abs=1e-2)


def test_dropout_is_refused() -> None:
    with pytest.raises(JobError) as refused:
        Recipe.from_json({"method": "preference", "dropout": 0.1})

    assert refused.value.code == "setting_unusable"
