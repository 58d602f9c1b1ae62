"""How tokens look at each other: the weights of transformers' eager attention, whichever runner computes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from inference import Engine
from inference.engine import EngineCore
from inference.model import GPT
from inference.native import NativeRunner
from inference.prepacked import prepacked_runner
from inference.prompts import RequestRefused
from inference.protocol import MAX_ATTENDED_TOKENS, Attended, FailureCode, FinishReason
from inference.runner import Runner
from tests.inference.asking import a_request, an_engine, an_engine_with, finish
from tests.inference.tiny import tiny_base

TEXT = "The capital of France is Paris. 你好"
RUNNERS = [prepacked_runner, NativeRunner]


def theirs(folder: Path, tokens: list[int], *, layer: int, head: int) -> torch.Tensor:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.inference_mode():
        return model(torch.tensor([tokens]), output_attentions=True).attentions[layer][0, head]


def filled(attended: Attended) -> torch.Tensor:
    size = len(attended.tokens)
    return torch.tensor([[*row, *([0.0] * (size - len(row)))] for row in attended.weights])


def attended_in(events: list[tuple[str, Any]]) -> list[Attended]:
    return [event for _, event in events if isinstance(event, Attended)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("run_with", RUNNERS)
def test_weights_are_those_of_transformers_also_in_a_busy_batch_that_cuts_the_text(
    folder: Path, run_with: Callable[[GPT, int], Runner]
) -> None:
    engine = an_engine_with(folder, run_with, max_batch_tokens=8)
    asked = [(0, 0), (1, 3), (1, 2)]

    engine.submit(a_request("Tell me " * 20, max_tokens=20))
    engine.step()
    for layer, head in asked:
        engine.submit(a_request(TEXT, attention={"layer": layer, "head": head}))
    found = attended_in(finish(engine))

    tokens = engine.tokenizer.encode_plain(TEXT)
    assert len(tokens) > 8
    assert sorted((its.layer, its.head) for its in found) == sorted(asked)
    for its in found:
        assert (filled(its) - theirs(folder, tokens, layer=its.layer, head=its.head)).abs().max() < 2e-4
    assert engine.stats()["blocks_used"] == 0


def test_a_window_hides_what_is_further_back(tmp_path: Path) -> None:
    folder = tiny_base(
        tmp_path, architectures=["MistralForCausalLM"], model_type="mistral", sliding_window=4
    )  # every layer sees four tokens

    found = _ask(an_engine(folder), layer=1, head=1)

    tokens = an_engine(folder).tokenizer.encode_plain(TEXT)
    assert (filled(found) - theirs(folder, tokens, layer=1, head=1)).abs().max() < 2e-4
    assert found.weights[6][:3] == [0, 0, 0]


@pytest.mark.parametrize(
    "asked", [{"layer": 2, "head": 0}, {"layer": 0, "head": 4}, {"layer": -1, "head": 0}, {"layer": True, "head": 0}, {}]
)
def test_a_layer_or_head_that_is_not_there_is_refused(folder: Path, asked: dict[str, int]) -> None:
    with pytest.raises(RequestRefused) as caught:
        an_engine(folder).submit(a_request(TEXT, attention=asked))

    assert caught.value.code == FailureCode.INVALID_PARAMETER
    assert (caught.value.detail["layers"], caught.value.detail["heads"]) == (2, 4)


@pytest.mark.parametrize("text", ["", "Tell me " * MAX_ATTENDED_TOKENS])
def test_only_short_texts_are_looked_at(folder: Path, text: str) -> None:
    with pytest.raises(RequestRefused, match=f"1 to {MAX_ATTENDED_TOKENS}"):
        an_engine(folder).submit(a_request(text, attention={"layer": 0, "head": 0}))


@pytest.mark.real_model
def test_weights_of_the_real_model_are_those_of_transformers_and_those_that_the_store_shows_beforehand(smollm2_folder: Path) -> None:
    shown = Attended.from_json(json.loads(Path("store/pages/attention_example.json").read_text(encoding="utf-8")))
    text = "".join(shown.tokens)

    with Engine.load(smollm2_folder, dtype="float32") as engine:
        found = engine.attention(text, layer=shown.layer, head=shown.head)
        tokens = engine.tokenizer.encode_plain(text)

    assert (found.layers, found.heads) == (30, 9)
    assert found.tokens == shown.tokens
    assert (filled(found) - theirs(smollm2_folder, tokens, layer=shown.layer, head=shown.head)).abs().max() < 2e-4
    assert (filled(found) - filled(shown)).abs().max() < 2e-3


def _ask(engine: EngineCore, *, layer: int, head: int) -> Attended:
    engine.submit(a_request(TEXT, attention={"layer": layer, "head": head}))
    events = finish(engine)
    assert events[-1][1].reason == FinishReason.STOP
    return attended_in(events)[0]
