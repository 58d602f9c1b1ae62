"""The real SmolLM2: greedy answers are those of transformers, token by token, in float32."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
import torch
import transformers

from inference import Engine, SamplingParams, suites
from inference.checkpoint import load_gpt
from inference.engine import EngineCore
from inference.engine_options import EngineOptions
from inference.measuring import Measuring, Subject
from inference.metrics import measured
from inference.model import GPT
from inference.native import NativeRunner
from inference.prepacked import prepacked_runner
from inference.runner import Runner
from inference.sampling_params import Form, Grammar
from inference.tokenizer import Tokenizer
from tests.inference.asking import a_request, an_engine, run

pytestmark = pytest.mark.real_model

PROMPTS = (
    "What is the capital of France?",
    "Explain in two sentences why the sky is blue.",
    "Rewrite politely: Send me the report now.",
    "Write a haiku about autumn.",
    "List five fruits.",
    "What is 12 times 12?",
    "Translate to French: Where is the library?",
    "Who wrote Hamlet?",
    "Give me a recipe for pancakes.",
    "Summarise: Tides rise and fall with the Moon.",
    "Write a Python function that adds two numbers.",
    "What do bees do in winter?",
    "Correct the spelling: Teh wether is nise todey.",
    "Name three planets with rings.",
    "Why do cats purr?",
    "Tell me a short story about a lighthouse.",
    "What is the difference between a noun and a verb?",
    "你好,请介绍一下你自己。",
    "Count from one to ten.",
    "Say the same sentence twice: The sea is calm tonight.",
)
ANSWER_TOKENS = 64
END = 2  # of an answer, by SmolLM2's generation_config.json


@pytest.fixture(scope="module")
def prompts(smollm2_folder: Path) -> list[list[int]]:
    tokenizer = Tokenizer.from_folder(smollm2_folder)
    return [tokenizer.render([{"role": "user", "content": text}]) for text in PROMPTS]


@pytest.fixture(scope="module")
def their_choices(smollm2_folder: Path, prompts: list[list[int]]) -> Callable[[list[list[int]]], list[list[int]]]:
    """What transformers would choose at each token of answers to the prompts, behind the tokens before it. If that is the answer itself,
    it is the one that transformers gives, which it need not generate token by token for this.
    """
    theirs = transformers.AutoModelForCausalLM.from_pretrained(smollm2_folder, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(smollm2_folder)
    read = [tokenizer.apply_chat_template([{"role": "user", "content": text}], add_generation_prompt=True)["input_ids"] for text in PROMPTS]
    assert read == prompts

    def chosen(prompt: list[int], answer: list[int]) -> list[int]:
        logits = theirs(torch.tensor([[*prompt, *answer[:-1]]]), logits_to_keep=len(answer)).logits
        return logits[0].argmax(dim=-1).tolist()

    @torch.inference_mode()
    def choices(answers: list[list[int]]) -> list[list[int]]:
        return [chosen(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]

    return choices


@pytest.mark.xdist_group("greedy")  # so that transformers is loaded once
@pytest.mark.parametrize("runner", [prepacked_runner, NativeRunner])
def test_greedy_answers_are_those_of_transformers(
    runner: Callable[[GPT, int], Runner],
    prompts: list[list[int]],
    their_choices: Callable[[list[list[int]]], list[list[int]]],
    smollm2_folder: Path,
) -> None:
    options = EngineOptions(dtype="float32", cache_tokens=4096)
    model = load_gpt(smollm2_folder, dtype=torch.float32)
    with Engine(EngineCore(model, Tokenizer.from_folder(smollm2_folder), options, run_with=runner)) as engine:
        outputs = engine.generate(prompts, SamplingParams(max_tokens=ANSWER_TOKENS, temperature=0.0))
    answers = [output.token_ids for output in outputs]

    assert answers == their_choices(answers)
    assert all(len(answer) == ANSWER_TOKENS or answer[-1] == END for answer in answers)
    assert all(END not in answer[:-1] for answer in answers)
    assert "Paris" in outputs[0].text
    assert sum(map(len, answers)) > 12 * ANSWER_TOKENS


def test_an_answer_that_must_follow_a_schema_does_and_still_knows_the_answer(smollm2_folder: Path) -> None:
    schema = {
        "type": "object",
        "properties": {
            "capital": {"type": "string", "maxLength": 30},
            "continent": {"enum": ["Africa", "America", "Asia", "Europe", "Oceania"]},
            "neighbours": {"type": "array", "items": {"type": "string", "maxLength": 30}, "minItems": 1, "maxItems": 3},
        },
        "required": ["capital", "continent", "neighbours"],
        "additionalProperties": False,
    }
    prompt = "Describe France as JSON: its capital, its continent and its neighbours."

    (outcome,) = run(an_engine(smollm2_folder), a_request(prompt, max_tokens=160, grammar=Grammar(Form.JSON_SCHEMA, schema)))

    found = json.loads(outcome.text)
    jsonschema.validate(found, schema)
    assert (found["capital"], found["continent"]) == ("Paris", "Europe")


def test_suites_of_choices_give_the_same_numbers_again_and_more_than_guessing_would(smollm2_folder: Path) -> None:
    chosen = [suites.built_in(name).first(12) for name in ("knowledge", "code")]

    with Engine.load(smollm2_folder, dtype="float32") as engine:
        measuring = Measuring(engine, engine.tokenizer.render)
        first, again = ([measuring.run(suite, Subject()).rows for suite in chosen] for _ in range(2))

    assert first == again
    for rows in first:
        found = measured("acc", rows["acc"])
        assert found["low"] > 25, found
