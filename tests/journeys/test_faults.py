"""Processes die under running requests, and people are told, or do not notice."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import httpx2 as httpx
import pytest

from store.accounts.keys import create_key
from store.generation.models import Request
from tests.making import make_user
from tests.stack import Stack, wait_until

pytestmark = [pytest.mark.stack, pytest.mark.real_model]
LONG = {
    "model": "",
    "messages": [{"role": "user", "content": "Tell me a very long story."}],
    "max_tokens": 2000,
    "logit_bias": {"0": -100, "2": -100},  # SmolLM2's ends: the story goes on until something stops it
    "stream": True,
}


@pytest.fixture
def headers(stack: Stack) -> dict[str, str]:
    _, secret = create_key(make_user(), name="test")
    return {"authorization": f"Bearer {secret}"}


@pytest.fixture
def asked(stack: Stack, headers: dict[str, str]) -> dict[str, object]:
    models = httpx.get(f"{stack.url}/v1/models", headers=headers, timeout=30).json()["data"]
    return LONG | {"model": next(model["id"] for model in models if model["id"].endswith("/smollm2-135m-instruct"))}


@pytest.mark.postgresql
def test_an_engine_killed_in_mid_answer_ends_the_stream_with_a_plain_error(
    stack: Stack, headers: dict[str, str], asked: dict[str, object]
) -> None:
    said, killed = [], False
    with httpx.stream("POST", f"{stack.url}/v1/chat/completions", headers=headers, json=asked, timeout=120) as answer:
        for line in answer.iter_lines():
            if not line.startswith("data: "):
                continue
            said.append(line.removeprefix("data: "))
            if not killed and '"content": "' not in line and len(said) > 4:
                killed = True
                for pid in stack.pids("inference.engine_process"):
                    os.kill(pid, signal.SIGKILL)

    error = json.loads(said[-1])["error"]
    assert error["code"] == "engine_died"
    request = json.loads(said[0])["id"].removeprefix("chatcmpl-")
    row = wait_until(lambda: Request.objects.filter(public_id=request).exclude(state="admitted").first())
    assert (row.state, row.cost_micro) == ("failed", 0)

    again = httpx.post(f"{stack.url}/v1/chat/completions", headers=headers, json=asked | {"stream": False, "max_tokens": 4}, timeout=120)
    assert again.status_code == 200


def test_a_worker_killed_with_requests_in_hand_and_in_its_queue_loses_none(stack: Stack, asked: dict[str, object]) -> None:
    user = make_user()
    _, secret = create_key(user, name="test")
    short = asked | {"stream": False, "max_tokens": 2}

    def ask() -> int:
        with httpx.Client(headers={"authorization": f"Bearer {secret}"}, timeout=200) as client:
            return client.post(f"{stack.url}/v1/chat/completions", json=short).status_code

    assert ask() == 200
    for pid in stack.pids("inference.engine_process"):
        os.kill(pid, signal.SIGSTOP)  # nothing is said before the end comes
    with ThreadPoolExecutor(40) as pool:  # more than an engine is given at once
        answers = [pool.submit(ask) for _ in range(40)]
        wait_until(lambda: Request.objects.filter(user=user).count() == 41, what="the 41st request")
        (worker,) = stack.pids("inference.worker", "generation.load")
        os.kill(worker, signal.SIGKILL)

        assert [answer.result() for answer in answers] == [200] * 40

    wait_until(lambda: Request.objects.filter(user=user, state="finished", completion_tokens__gt=0).count() == 41)


def test_usage_is_recorded_once_though_the_web_process_dies_in_mid_stream(
    stack: Stack, headers: dict[str, str], asked: dict[str, object]
) -> None:
    request = _ask_and_kill_the_web_process(stack, headers, asked)

    row = wait_until(lambda: Request.objects.filter(public_id=request).exclude(state="admitted").first(), within_s=90)
    assert row.state == "cancelled"
    assert row.prompt_tokens > 0
    wait_until(lambda: _is_up(stack), what="the restarted web process")


def _ask_and_kill_the_web_process(stack: Stack, headers: dict[str, str], asked: dict[str, object]) -> str:
    """The public id of the request that was being answered."""
    request = ""
    with (
        contextlib.suppress(httpx.HTTPError),
        httpx.stream("POST", f"{stack.url}/v1/chat/completions", headers=headers, json=asked, timeout=120) as answer,
    ):
        for line in answer.iter_lines():
            if line.startswith("data: ") and not request:
                request = json.loads(line.removeprefix("data: "))["id"].removeprefix("chatcmpl-")
                for pid in stack.pids("uvicorn", "store.asgi"):
                    os.kill(pid, signal.SIGKILL)
    return request


def _is_up(stack: Stack) -> bool:
    try:
        return httpx.get(f"{stack.url}/readyz", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False
