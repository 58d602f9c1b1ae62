"""What the demo's pages claim of their GPTs is what the model says."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference.engine import EngineCore
from store.pages.demo.catalogue import GPTS, DemoGPT
from tests import demo_outputs


@pytest.fixture(scope="module")
def engine(smollm2_folder: Path) -> EngineCore:
    return demo_outputs.load(smollm2_folder)


@pytest.mark.real_model
@pytest.mark.parametrize("gpt", GPTS, ids=lambda gpt: gpt.slug)
def test_the_committed_answer_is_given_again(engine: EngineCore, gpt: DemoGPT) -> None:
    first = gpt.trial.answers[0]

    said = demo_outputs.answers(engine, instructions=gpt.instructions, parameters=gpt.parameters, prompts=[first.prompt])

    assert said == [first.output]
