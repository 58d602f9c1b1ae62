"""The real SmolLM2: greedy text is that of transformers, token by token, in float32."""

from __future__ import annotations

import json
import time
from pathlib import Path

import jsonschema
import pytest
import torch
import transformers

from inference.engine import EngineCore, EngineOptions
from inference.protocol import Delta, Form, GenerationRequest, Grammar, SamplingParams
from tests.inference.asking import a_request, run

PROMPTS = (
    "What is the capital of France?",
    "Explain in two sentences why the sky is blue.",
    "Rewrite politely: Send me the report now.",
)
MAX_TOKENS = 24


@pytest.fixture(scope="module")
def engine(smollm2_folder: Path) -> EngineCore:
    return EngineCore.load(smollm2_folder, EngineOptions(dtype="float32", cache_tokens=2048))


@pytest.fixture(scope="module")
def theirs(smollm2_folder: Path) -> transformers.PreTrainedModel:
    return transformers.AutoModelForCausalLM.from_pretrained(smollm2_folder, dtype=torch.float32).eval()


def test_greedy_answers_are_those_of_transformers(engine: EngineCore, theirs: transformers.PreTrainedModel, smollm2_folder: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(smollm2_folder)
    expected = []
    for prompt in PROMPTS:
        tokens = tokenizer.apply_chat_template([{"role": "user", "content": prompt}], add_generation_prompt=True, return_tensors="pt")
        answer = theirs.generate(**tokens, max_new_tokens=MAX_TOKENS, do_sample=False)[0, tokens["input_ids"].shape[1] :]
        expected.append(tokenizer.decode(answer, skip_special_tokens=True))

    for number, prompt in enumerate(PROMPTS):
        engine.submit(
            GenerationRequest(
                id=f"req_{number}",
                base="base",
                version="version",
                tenant="tenant",
                messages=[{"role": "user", "content": prompt}],
                sampling=SamplingParams(max_tokens=MAX_TOKENS, temperature=0.0).to_json(),
                deadline=time.time() + 600,
            )
        )
    answers = dict.fromkeys((f"req_{number}" for number in range(len(PROMPTS))), "")
    while engine.has_work:
        for id_, event in engine.step():
            if isinstance(event, Delta):
                answers[id_] += event.text

    assert list(answers.values()) == expected
    assert "Paris" in expected[0]


def test_an_answer_that_must_follow_a_schema_does_and_still_knows_the_answer(engine: EngineCore) -> None:
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

    (outcome,) = run(engine, a_request(prompt, max_tokens=160, grammar=Grammar(Form.JSON_SCHEMA, schema)))

    found = json.loads(outcome.text)
    jsonschema.validate(found, schema)
    assert (found["capital"], found["continent"]) == ("Paris", "Europe")
