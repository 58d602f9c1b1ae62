from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from inference.protocol import GenerationRequest
from store.catalog.models import Version
from store.generation.admission import admit
from store.generation.models import Request
from tests import making
from tests.generation import workplace

HELLO = [{"role": "user", "content": "Hello"}]
Begun = Callable[..., Request]
Ask = Callable[..., tuple[Request, GenerationRequest]]


@pytest.fixture
def version(db: None) -> Version:
    """A released, free prompt GPT on a base, and a worker that beats."""
    workplace.worker_beats()
    return making.make_prompt(making.make_base(), parameters={"temperature": 0.3, "max_tokens": 100})


@pytest.fixture
def begun(version: Version, django_capture_on_commit_callbacks: Any) -> Begun:
    """An admitted request, whose order waits for a worker."""

    def begun(**fields: Any) -> Request:
        fields = {"messages": HELLO, "sampling": {}, "user": None, "visitor": "vis_1", "source": Request.Source.TRY} | fields
        with django_capture_on_commit_callbacks(execute=True):
            return admit(fields.pop("version", version), **fields)

    return begun


@pytest.fixture
def ask(begun: Begun) -> Ask:
    """An admitted request and its order, as a worker has claimed it."""

    def ask(**fields: Any) -> tuple[Request, GenerationRequest]:
        return begun(**fields), workplace.take()

    return ask
