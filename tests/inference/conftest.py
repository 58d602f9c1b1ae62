"""One thread for torch: the models are tiny, and spinning threads would only fight with the other test processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from inference.tokenizer import Tokenizer
from tests.inference.vllm_asking import END
from tests.inference.vllm_fake import Script, VllmFake, vllm_fake

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def words(base: Path) -> Callable[[str], list[int]]:
    """A text as the tokens of the test's base."""
    return Tokenizer.from_folder(base).encode


@pytest.fixture
def fake(words: Callable[[str], list[int]]) -> Iterator[VllmFake]:
    """A stand-in for a vLLM server of the test's base."""
    with vllm_fake(Script([[*words("Paris is it."), END]])) as server:
        yield server
