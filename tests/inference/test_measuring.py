"""Suites put to a tiny model: what transformers says of the same tokens, and what instructions and adapters change."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import transformers

from inference import Engine, evaluation, suites
from inference.checkpoint import load_gpt
from inference.measuring import Measuring, Subject, Unmeasurable
from inference.suites import Asked, Choice, Kind, Suite
from inference.tokenizer import Tokenizer
from tests.inference.tiny import tiny_adapter, tiny_base

PAIRS = [
    ("The capital of France is", "Paris"),
    ("The capital of France is", "a store for models"),
    ("def add(a, b):\n   ", "return a + b"),
    ("中国的首都是", "北京"),
    ("", "Hello! How can I help you today?"),
    ("   ", "Water boils."),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def measuring(folder: Path) -> Iterator[Measuring]:
    torch.set_num_threads(1)
    with Engine.load(folder, dtype="float32") as engine:
        yield Measuring(engine, engine.tokenizer.render)


def suite_of(kind: Kind, *items: Asked | Choice, max_tokens: int = 8) -> Suite:
    return Suite("own", kind, suites.METRICS_OF[kind], max_tokens, items, "0" * 64)


def of_transformers(folder: Path, context: str, continuation: str) -> float:
    """As lm-evaluation-harness has it: spaces at the end of the context go to the continuation, and both are cut together."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    bare = context.rstrip()
    whole = tokenizer(bare + context[len(bare) :] + continuation, add_special_tokens=False).input_ids
    head = tokenizer(bare, add_special_tokens=False).input_ids if bare else []
    if not bare:
        whole, head = [0, *whole], [0]  # the end-of-text token
    with torch.inference_mode():
        logprobs = model(torch.tensor([whole])).logits[0].double().log_softmax(-1)
    return float(sum(logprobs[at - 1, whole[at]] for at in range(len(head), len(whole))))


def test_log_likelihoods_are_those_of_transformers(folder: Path, measuring: Measuring) -> None:
    found = measuring.log_likelihoods(PAIRS, Subject())

    joined = ["" if not context or context[-1].isspace() or continuation == "北京" else " " for context, continuation in PAIRS]
    expected = [of_transformers(folder, c, space + t) for (c, t), space in zip(PAIRS, joined, strict=True)]
    assert found == pytest.approx(expected, abs=1e-3)


def test_the_likeliest_choice_counts_by_its_sum_and_for_a_character(folder: Path, measuring: Measuring) -> None:
    context, choices = "Hello! How can", ("Hello!", "a store for models", "Ça va? Grüße!")
    sums = [of_transformers(folder, context, f" {choice}") for choice in choices]
    of_a_character = [total / len(choice) for total, choice in zip(sums, choices, strict=True)]
    by_sum, by_character = (values.index(max(values)) for values in (sums, of_a_character))
    assert by_sum != by_character

    scores = measuring.run(suite_of(Kind.CHOICES, *(Choice(context, choices, place) for place in range(3))), Subject())

    assert [row[0] for row in scores.rows["acc"]] == [float(place == by_sum) for place in range(3)]
    assert [row[0] for row in scores.rows["acc_norm"]] == [float(place == by_character) for place in range(3)]


def test_perplexity_is_that_of_the_checks(folder: Path, measuring: Measuring) -> None:
    theirs = evaluation.score(load_gpt(folder, dtype=torch.float32), Tokenizer.from_folder(folder), after_each=lambda done: None)

    rows = measuring.run(suites.built_in("perplexity"), Subject()).rows["perplexity"]

    assert [row[1] for row in rows] == theirs.tokens.tolist()
    assert [row[0] for row in rows] == pytest.approx(theirs.losses.tolist(), rel=1e-5)


def test_a_pair_is_stereotyped_where_the_prejudice_is_likelier(measuring: Measuring) -> None:
    suite = suites.built_in("bias")
    sums = measuring.log_likelihoods([("", text) for pair in suite.items for text in (pair.stereotype, pair.other)], Subject())  # type: ignore[union-attr]
    gaps = [first - second for first, second in zip(sums[::2], sums[1::2], strict=True)]

    rows = measuring.run(suite, Subject()).rows

    assert [row[0] for row in rows["stereotype"]] == [float(gap > 0) for gap in gaps]
    assert [row[0] for row in rows["likelihood_gap"]] == pytest.approx([abs(gap) for gap in gaps], abs=1e-3)


def test_instructions_stand_before_the_question_and_an_adapter_answers_otherwise(
    folder: Path, measuring: Measuring, tmp_path: Path
) -> None:
    asked = Asked([{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello!"}], ("Hi",))
    suite = suite_of(Kind.QUESTIONS, asked)
    subject = Subject(instructions="Be brief.")
    adapted = Subject(adapter=tiny_adapter(tmp_path / "adapter", folder))

    answers = [measuring.run(suite, each).samples[0]["answer"] for each in (Subject(), subject, adapted)]

    assert subject.told(asked.messages)[0] == {"role": "system", "content": "Be brief.\n\nBe kind."}
    assert Subject().told(asked.messages) == asked.messages
    assert len(set(answers)) == 3
    assert [measuring.run(suite, each).samples[0]["answer"] for each in (Subject(), subject, adapted)] == answers


def test_speed_is_measured_of_every_prompt(measuring: Measuring) -> None:
    rows = measuring.run(suites.built_in("speed"), Subject()).rows

    assert len(rows["tokens_per_s"]) == len(rows["first_token_ms"]) == 4
    assert all(row[0] > 0 for name in rows for row in rows[name])


def test_an_item_that_is_longer_than_the_context_is_named(measuring: Measuring) -> None:
    short, long = (Asked([{"role": "user", "content": "Hello! " * count}], ("x",)) for count in (1, 3000))

    with pytest.raises(Unmeasurable, match=r"Item 2 has \d+ tokens; this model's context holds 2048"):
        measuring.run(suite_of(Kind.QUESTIONS, short, long), Subject())
