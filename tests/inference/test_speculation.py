"""Guessing ahead: faster where a stream repeats itself, and never another answer."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inference.cache import block_count
from inference.engine import EngineCore
from inference.model import GPT
from inference.native import NativeRunner
from inference.protocol import FinishReason, Priority
from inference.runner import Runner, TorchRunner
from inference.speculation import LONGEST_PAUSE, Drafts
from tests.inference.asking import PROMPTS, Outcome, a_request, an_engine, an_engine_with, finish, outcomes, run, texts
from tests.inference.tiny import tiny_adapter, tiny_base, write_json

SAMPLINGS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.5, "seed": 3},
    {"temperature": 1.0, "top_p": 0.5, "seed": 4},
    {"frequency_penalty": 0.3, "presence_penalty": 0.1},
    {"temperature": 0.6, "seed": 5, "frequency_penalty": 0.2},
    {"stop": ("e ", "ou")},
    {"stop": ("e",), "min_tokens": 30},
    {"logprobs": 3},
    {"logit_bias": {"70": 3.0}, "temperature": 0.4, "seed": 9},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("model"))


def told(outcome: Outcome) -> list[dict[str, Any]]:
    return [entry for delta in outcome.deltas for entry in delta.logprobs or []]


def shares(outcome: Outcome) -> list[float]:
    return [share["logprob"] for entry in told(outcome) for share in (entry, *entry["top_logprobs"])]


@pytest.mark.parametrize("run_with", [TorchRunner, NativeRunner])
@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_an_answer_is_the_same_with_and_without_guesses(
    folder: Path, run_with: Callable[[GPT, int], Runner], sampling: dict[str, Any]
) -> None:
    guessing, other = (an_engine_with(folder, run_with, lookahead=most) for most in (8, 0))

    for prompt in PROMPTS:
        (found,), (expected,) = (run(engine, a_request(prompt, max_tokens=80, **sampling)) for engine in (guessing, other))

        assert found.text == expected.text
        assert found.finished.reason == expected.finished.reason
        assert found.finished.usage == expected.finished.usage
        assert [entry["token"] for entry in told(found)] == [entry["token"] for entry in told(expected)]
        rounding = 1e-4 if run_with is TorchRunner else 0.0  # the C++ path's numbers are the same to the bit
        assert shares(found) == pytest.approx(shares(expected), rel=0, abs=rounding)
        assert guessing.stats()["blocks_used"] == 0
        assert guessing.stats()["blocks_cached"] == other.stats()["blocks_cached"]
    assert other.stats()["guessed"] == 0
    assert guessing.stats()["guessed"] > 0


def test_a_stream_that_repeats_itself_takes_fewer_steps(folder: Path) -> None:
    guessing, other = (an_engine(folder, lookahead=most) for most in (8, 0))
    always = {"logit_bias": {"70": 100.0}}  # says one token again and again

    (found,), (expected,) = (run(engine, a_request(max_tokens=80, **always)) for engine in (guessing, other))

    assert found.text == expected.text
    assert other.stats()["steps"] == 80
    assert guessing.stats()["steps"] < 20


def test_an_answer_that_ends_inside_a_guess_ends_where_it_would(folder: Path, tmp_path: Path) -> None:
    ending = tiny_base(tmp_path / "ending")
    write_json(ending / "generation_config.json", {"eos_token_id": 71})
    twice = {"logit_bias": {"70": 100.0}, "stop": ("\x00",)}
    for most in (1, 3, 8):
        engine = an_engine(ending, lookahead=most)
        for max_tokens in range(1, 30):
            (outcome,) = run(engine, a_request(max_tokens=max_tokens, **twice))
            assert outcome.finished.usage["completion_tokens"] == max_tokens
            assert outcome.finished.reason == FinishReason.LENGTH
    assert engine.stats()["blocks_used"] == 0


def test_an_adapters_answer_is_guessed_too(folder: Path, tmp_path: Path) -> None:
    adapter = tiny_adapter(tmp_path / "adapter", folder)
    guessing, other = (an_engine(folder, lookahead=most) for most in (8, 0))

    found, expected = (
        texts(run(engine, a_request("Tell me " * 10, adapter="1" * 64, max_tokens=80), adapter_folder=adapter))
        for engine in (guessing, other)
    )

    assert found == expected


def test_after_each_step_a_stream_holds_what_its_tokens_need(folder: Path) -> None:
    engine = an_engine(folder, lookahead=8)
    answer = engine.submit(request := a_request("Tell me " * 30, max_tokens=120, temperature=0.3, seed=2))
    events = []

    while engine.has_work:
        events += engine.step()
        if answer.first.choice.count:
            sequence = answer.first.sequence
            expected = block_count(len(sequence.tokens) - 1) if answer.under_way else 0
            assert engine.stats()["blocks_used"] == expected == len(sequence.blocks.blocks)

    assert engine.stats()["guessed"] > engine.stats()["guessed_right"] > 0
    assert outcomes(events, [request])[0].finished.usage["completion_tokens"] == 120


def test_with_few_blocks_the_guess_is_what_there_is_room_for(folder: Path) -> None:
    expected = texts(run(an_engine(folder, lookahead=0), a_request("Tell me " * 4, max_tokens=200)))

    assert texts(run(an_engine(folder, lookahead=8, cache_tokens=288), a_request("Tell me " * 4, max_tokens=200))) == expected


def guessed(engine: EngineCore, *requests: Any) -> int:
    run(engine, *requests)
    return int(engine.stats()["guessed"])


def test_nothing_is_guessed_where_others_run_nobody_waits_or_the_prompt_is_read(folder: Path) -> None:
    engine = an_engine(folder, lookahead=8)
    repeating = {"max_tokens": 40, "logit_bias": {"70": 100.0}}

    assert guessed(engine, a_request(**repeating), a_request(**repeating)) == 0
    assert guessed(engine, a_request(**repeating, n=2)) == 0
    assert guessed(engine, a_request(**repeating, priority=Priority.BATCH)) == 0
    assert guessed(engine, a_request(**repeating, prompt_logprobs=0)) == 0
    assert guessed(engine, a_request(**repeating)) > 0


def test_a_request_that_comes_while_another_is_guessed_ahead_changes_neither(folder: Path) -> None:
    first, second = (a_request(prompt, max_tokens=60, temperature=0.4, seed=1) for prompt in ("Tell me " * 20, "rate it"))
    alone = [texts(run(an_engine(folder, lookahead=0), request))[0] for request in (first, second)]
    engine = an_engine(folder, lookahead=8)
    engine.submit(first)
    events = [event for _ in range(12) for event in engine.step()]
    engine.submit(second)

    assert texts(outcomes(events + finish(engine), [first, second])) == alone


def test_a_guess_is_what_followed_the_newest_tokens_last_time() -> None:
    drafts = Drafts(8)

    assert drafts.propose([1, 2, 3, 9, 1, 2, 3, 4, 5, 6, 7, 1, 2, 3], 8) == [4, 5, 6, 7]
    assert Drafts(8).propose([5, 6, 1, 7, 5, 6], 8) == [1, 7, 5, 6]  # two tokens will do
    assert Drafts(8).propose([1, 2, 1, 2, 1], 2) == [2, 1]
    assert Drafts(8).propose([1, 1, 1], 8) == [1, 1, 1, 1]  # a guess goes on in itself
    assert Drafts(8).propose([1, 2, 3, 4], 8) == []
    assert Drafts(8).propose([7], 8) == []
    assert Drafts(0).propose([1, 1, 1, 1], 8) == []


def test_guesses_that_hold_grow_and_those_that_fail_become_seldom() -> None:
    drafts, tokens = Drafts(8), [1] * 10
    lengths = []
    for _ in range(4):
        lengths.append(len(draft := drafts.propose(tokens, 100)))
        drafts.judge(len(draft), len(draft))
    assert lengths == [4, 8, 8, 8]

    made = 0
    for _ in range(1000):
        if draft := drafts.propose(tokens, 100):
            made += len(draft)
            drafts.judge(len(draft), 0)

    assert made < 2 * 1000 / LONGEST_PAUSE + 30


def test_what_is_guessed_always_stood_there() -> None:
    choose = random.Random(1)
    drafts, tokens = Drafts(8), [choose.randint(1, 3) for _ in range(5)]

    for _ in range(300):
        draft = drafts.propose(tokens, 8)
        together = tokens + draft
        if draft:
            before = [together[at : at + 2 + len(draft)] for at in range(len(tokens) - 2)]
            assert together[len(tokens) - 2 :] in before
            drafts.judge(len(draft), choose.randint(0, len(draft)))
        tokens.append(choose.randint(1, 3))
