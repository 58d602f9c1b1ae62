"""Fine-tuning: it learns, packing changes nothing, it resumes to the bit, and PEFT reads what it writes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from inference import adapters
from inference.attention import CausalAttention
from inference.checkpoint import load_gpt
from inference.config import GPTConfig
from inference.datasets import Example, load_examples
from inference.lora import Adapter, LoraBatch
from inference.tokenizer import Tokenizer
from inference.training import BadSettings, Run, Settings, batch_loss, micro_batches
from tests.inference.tiny import tiny_llama

SETTINGS = Settings(rank=4, alpha=8, epochs=4, learning_rate=1e-2, batch_size=4, max_length=128, validation_share=0.2, seed=3)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def examples(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Example]:
    path = tmp_path_factory.mktemp("file") / "chat.jsonl"
    lines = [
        {"messages": [{"role": "user", "content": f"What is {number} and one?"}, {"role": "assistant", "content": f"It is {number + 1}."}]}
        for number in range(20)
    ]
    path.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    return load_examples(path, Tokenizer.from_folder(base), max_length=128)


def new_run(base: Path, examples: list[Example], settings: Settings = SETTINGS) -> Run:
    torch.set_num_threads(1)
    return Run(load_gpt(base, dtype=torch.float32), examples, settings)


def weights_of(run: Run) -> dict[str, torch.Tensor]:
    return {f"{name}.{side}": getattr(part, side).detach().clone() for name, part in run.parts.items() for side in ("a", "b")}


def test_it_learns_and_beats_its_base_on_what_was_held_out(base: Path, examples: list[Example]) -> None:
    run = new_run(base, examples)

    first = run.validate()
    events = [run.advance() for _ in range(run.total_steps)]
    last = run.validate()

    assert (len(run.training), len(run.validation), run.total_steps) == (16, 4, 16)
    assert first is not None
    assert last is not None
    assert events[-1]["loss"] < 0.5 * events[0]["loss"]
    assert last["validation_loss"] < 0.7 * first["validation_loss"]
    assert run.progress.base_validation_loss == first["validation_loss"]


def test_packed_and_unpacked_losses_agree(base: Path, examples: list[Example]) -> None:
    model = load_gpt(base, dtype=torch.float32)

    packed = batch_loss(model, examples[:6])
    alone = torch.stack([batch_loss(model, [example]) for example in examples[:6]]).sum()

    assert packed.item() == pytest.approx(alone.item(), rel=1e-5)


def test_only_what_the_assistant_says_is_learned(base: Path, examples: list[Example]) -> None:
    model = load_gpt(base, dtype=torch.float32)
    example = examples[0]
    tokens = torch.tensor(example.tokens)

    logits = model.logits(model(tokens, torch.arange(len(tokens)), CausalAttention([len(tokens)])))
    expected = sum(
        -torch.log_softmax(logits[place - 1], dim=-1)[tokens[place]].item() for place in range(1, len(tokens)) if example.trained[place]
    )

    assert 0 < example.trained_tokens < len(tokens)
    assert batch_loss(model, [example]).item() == pytest.approx(expected, rel=1e-5)


def test_micro_batches_keep_order_and_bound(examples: list[Example], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inference.training.MICRO_BATCH_TOKENS", 60)

    cut = list(micro_batches(examples))

    assert [example for batch in cut for example in batch] == examples
    assert all(sum(len(e.tokens) for e in batch) <= 60 or len(batch) == 1 for batch in cut)


def test_resumed_in_the_middle_it_ends_with_the_same_bits(base: Path, examples: list[Example], tmp_path: Path) -> None:
    whole = new_run(base, examples)
    for _ in range(whole.total_steps):
        whole.advance()
    begun = new_run(base, examples)
    for _ in range(7):
        begun.advance()
    begun.save(tmp_path)

    resumed = new_run(base, examples)
    resumed.load(tmp_path)
    while not resumed.is_over:
        resumed.advance()

    expected, found = weights_of(whole), weights_of(resumed)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert resumed.progress == whole.progress


def test_a_checkpoint_of_other_settings_is_refused(base: Path, examples: list[Example], tmp_path: Path) -> None:
    new_run(base, examples).save(tmp_path)
    other = new_run(base, examples, Settings(rank=4, alpha=8, epochs=2))

    with pytest.raises(ValueError, match="other settings"):
        other.load(tmp_path)


def test_peft_and_the_engine_read_the_adapter_with_the_logits_of_training(base: Path, examples: list[Example], tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    run = new_run(base, examples)
    for _ in range(5):
        run.advance()
    config = GPTConfig.from_folder(base)
    adapters.save(run.parts, tmp_path, settings=SETTINGS, base=str(base), config=config)
    tokens = torch.tensor(examples[0].tokens)
    positions, attention = torch.arange(len(tokens)), CausalAttention([len(tokens)])

    with torch.no_grad():
        trained = run.model.logits(run.model(tokens, positions, attention))
        plain = load_gpt(base, dtype=torch.float32)
        served = plain.logits(plain(tokens, positions, attention, LoraBatch([(Adapter.load(tmp_path, config), None)])))
        peft = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), str(tmp_path))
        expected = peft(tokens[None]).logits[0]

    assert (trained - expected).abs().max().item() < 1e-4
    assert (served - expected).abs().max().item() < 1e-4


def test_the_rate_warms_up_and_falls_to_a_tenth(base: Path, examples: list[Example]) -> None:
    run = new_run(base, examples, Settings(epochs=25, batch_size=4, learning_rate=1.0, validation_share=0.2))

    rates = [run.learning_rate(step) for step in range(run.total_steps)]

    assert rates[0] == pytest.approx(1 / 5)
    assert max(rates) == 1.0
    assert rates[-1] == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize(("name", "value"), [("rank", 0), ("epochs", True), ("learning_rate", math.nan), ("batch_size", "8")])
def test_settings_out_of_bounds_are_named(name: str, value: object) -> None:
    with pytest.raises(BadSettings, match=name):
        Settings.from_json({name: value})
