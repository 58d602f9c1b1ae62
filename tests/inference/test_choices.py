"""Several choices for one prompt: what each is does not depend on the others, and the prompt is computed once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inference.answers import seed_of_choice
from inference.engine import EngineCore
from inference.model import GPT
from inference.native import NativeRunner
from inference.protocol import FinishReason
from inference.reading import PromptLogprobs
from inference.runner import Runner, TorchRunner
from tests.inference.asking import PROMPTS, Outcome, a_request, an_engine, an_engine_with, finish, outcomes, run, run_all, texts
from tests.inference.tiny import tiny_base


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("model"))


@pytest.fixture
def engine(folder: Path) -> EngineCore:
    return an_engine(folder)


CHOICES = {"n": 4, "temperature": 1.5, "seed": 7}


def of_choices(outcome: Outcome) -> list[str]:
    return ["".join(delta.text for delta in outcome.deltas if delta.choice == number) for number in range(4)]


def apart(engine: EngineCore, prompt: str, **sampling: Any) -> list[str]:
    """What each of the four choices is when it is asked for alone."""
    seeds = [seed_of_choice(7, number) for number in range(4)]
    return [texts(run(engine, a_request(prompt, **{"temperature": 1.5} | sampling | {"seed": seed})))[0] for seed in seeds]


@pytest.mark.parametrize("run_with", [TorchRunner, NativeRunner])
@pytest.mark.parametrize("prompt", PROMPTS[:5])
def test_choices_are_what_they_would_be_alone_and_share_one_prompt(
    folder: Path, run_with: Callable[[GPT, int], Runner], prompt: str
) -> None:
    engine, other = (an_engine_with(folder, run_with, max_batch_tokens=64) for _ in range(2))

    (outcome,) = run(engine, a_request(prompt, **CHOICES))

    assert of_choices(outcome) == apart(other, prompt)
    assert len(set(of_choices(outcome))) == 4
    prompt_tokens = outcome.started.prompt_tokens
    assert outcome.finished.usage == {"prompt_tokens": prompt_tokens, "completion_tokens": 4 * 24, "cached_tokens": 0}
    assert engine.stats()["steps"] == -(-prompt_tokens // 64) + 23
    assert engine.stats()["blocks_used"] == 0


def test_each_choice_ends_by_itself_and_the_request_with_the_last(engine: EngineCore) -> None:
    stop = max(apart(engine, "Hello!")[2].split(), key=len)[:2]
    alone = apart(engine, "Hello!", stop=(stop,))

    (outcome,) = run(engine, a_request(stop=(stop,), **CHOICES))

    assert of_choices(outcome) == alone
    ends = {delta.choice: delta.reason for delta in outcome.deltas if delta.reason}
    assert len([delta for delta in outcome.deltas if delta.reason]) == len(ends) == 4
    assert ends[2] == FinishReason.STOP
    assert outcome.finished.reason == ends[0]
    assert len(set(map(len, alone))) > 1


def test_choices_without_room_wait_and_are_no_others_for_it(folder: Path) -> None:
    expected = apart(an_engine(folder), "Tell me " * 20, max_tokens=60)
    cramped = an_engine(folder, cache_tokens=320, max_running=3)
    other = a_request("a" * 90, max_tokens=60)
    (undisturbed,) = run(an_engine(folder), other)
    cramped.submit(other)

    outcome, beside = outcomes([*run_all(cramped, asked := a_request("Tell me " * 20, **CHOICES, max_tokens=60))], [asked, other])

    assert of_choices(outcome) == expected
    assert beside.text == undisturbed.text
    assert cramped.stats()["preemptions"] > 0
    assert cramped.stats()["blocks_used"] == 0


@pytest.mark.parametrize("steps", [0, 1, 3, 6])
def test_cancelling_a_request_ends_all_its_choices(folder: Path, steps: int) -> None:
    engine = an_engine(folder, max_batch_tokens=64, max_running=3)
    request = a_request("Tell me " * 40, **CHOICES, max_tokens=500)
    engine.submit(request)
    events = [event for _ in range(steps) for event in engine.step()]

    engine.cancel(request.id)

    (outcome,) = outcomes(events + finish(engine), [request])
    assert outcome.finished.reason == FinishReason.CANCELLED
    assert outcome.finished.usage["completion_tokens"] == sum(
        max((delta.tokens for delta in outcome.deltas if delta.choice == number), default=0) for number in range(4)
    )
    stats = engine.stats()
    assert (stats["running"], stats["waiting"], stats["blocks_used"]) == (0, 0, 0)


def test_the_log_probabilities_of_a_prompt_come_once_for_all_choices(folder: Path) -> None:
    engine = an_engine(folder, max_running=2)
    request = a_request("Tell me " * 20, **CHOICES, prompt_logprobs=1, logprobs=1)

    answer = engine.submit(request)
    (outcome,) = outcomes(finish(engine), [request])

    assert isinstance(answer.reader, PromptLogprobs)
    assert len(answer.reader.values) == outcome.started.prompt_tokens - 1
    assert [[found.token for found in branch.logprobs] for branch in answer.branches] == [branch.tokens for branch in answer.branches]


def test_choices_that_wait_for_a_place_are_no_further_requests(folder: Path) -> None:
    engine = an_engine(folder, max_running=4, max_waiting=2)
    for _ in range(3):
        engine.submit(a_request(n=4))
    engine.step()

    assert (engine.stats()["running"], engine.stats()["waiting"], engine.has_room) == (4, 8, True)
    assert [outcome.finished.reason for outcome in run(engine, a_request())] == [FinishReason.LENGTH]
