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
Ask = Callable[..., tuple[Request, GenerationRequest]]


@pytest.fixture
def version(db: None) -> Version:
    """A released, free prompt GPT on a base, and a worker that beats."""
    workplace.worker_beats()
    return making.make_prompt(making.make_base(), parameters={"temperature": 0.3, "max_tokens": 100})


@pytest.fixture
def ask(version: Version, django_capture_on_commit_callbacks: Any) -> Ask:
    """An admitted request and its order, as a worker has claimed it."""

    def ask(**fields: Any) -> tuple[Request, GenerationRequest]:
        fields = {"messages": HELLO, "sampling": {}, "user": None, "visitor": "vis_1", "source": Request.Source.TRY} | fields
        with django_capture_on_commit_callbacks(execute=True):
            request = admit(fields.pop("version", version), **fields)
        return request, workplace.take()

    return ask
