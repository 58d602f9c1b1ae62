"""A batch by the official client while the store's processes die: every line is answered once, in order, and paid for once."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator

import openai
import pytest

from store.accounts.keys import create_key
from store.accounts.models import User
from store.batches import results
from store.batches.models import Batch
from store.billing import ledger
from store.billing.models import Transaction
from store.catalog import publishing
from store.catalog.models import Version
from tests import making
from tests.batches.answering import file_of, line_of
from tests.stack import Stack, wait_until

pytestmark = [pytest.mark.stack, pytest.mark.real_model]
LINES = 120  # two shards
VICTIMS = (  # words of their command lines
    ("inference.engine_process",),
    ("inference.worker", "generation.load"),
    ("store.celery", "worker"),
    ("uvicorn", "store.asgi"),
)
CREDIT_MICRO = 10_000_000


@pytest.fixture
def user(stack: Stack) -> User:
    user = making.make_user()
    ledger.grant(None, user, CREDIT_MICRO, cause=f"grant:{user.public_id}")
    return user


@pytest.fixture
def version(stack: Stack) -> Version:
    """A GPT on the real base that asks a micro-unit for each token."""
    version = making.make_prompt(Version.objects.available().get(kind="weights", listing__slug="smollm2-135m-instruct"))
    owner = making.owner_of(version.listing.publisher)
    publishing.set_prices(owner, version.listing, input_price_micro=1_000_000, output_price_micro=1_000_000)
    return version


@pytest.fixture
def client(stack: Stack, user: User) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key=create_key(user, name="test")[1], timeout=60) as client:
        yield client


def test_a_batch_outlives_its_engine_its_worker_and_the_stores_processes(
    stack: Stack, client: openai.OpenAI, user: User, version: Version
) -> None:
    lines = [line_of(f"id-{n}", version.listing.full_name, f"Tell me about the number {n}.", max_tokens=24) for n in range(LINES)]
    file = client.files.create(file=("numbers.jsonl", file_of(lines)), purpose="batch")
    made = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")

    known: dict[str, int] = {}
    for victim in VICTIMS:
        _more_is_recorded(made.id, than=len(known))
        for pid in stack.pids(*victim):
            os.kill(pid, signal.SIGKILL)
        known |= _recorded(made.id)  # what is answered now is never asked again
    batch = wait_until(
        lambda: Batch.objects.filter(public_id=made.id, state="completed").first(), within_s=600, what="the end of the batch"
    )

    ended = wait_until(lambda: _asked(client, made.id), what="an answer of the restarted web process")
    answers = [json.loads(line) for line in client.files.content(ended.output_file_id).text.splitlines()]
    assert [answer["custom_id"] for answer in answers] == [f"id-{n}" for n in range(LINES)]
    assert ended.request_counts.to_dict() == {"total": LINES, "completed": LINES, "failed": 0}
    recorded = _recorded(made.id)
    assert {request: recorded[request] for request in known} == known
    events = [event for job in batch.jobs for segment in job.segments.all() for event in segment.events]
    assert sum(event["completed"] for event in events) == LINES
    spent = sum(answer["response"]["body"]["usage"]["total_tokens"] for answer in answers)
    assert (ended.usage.total_tokens, batch.cost_micro) == (spent, spent)
    assert Transaction.objects.filter(cause=batch.cause).count() == 1
    wallet = ledger.wallet_of(user)
    assert (wallet.balance_micro, wallet.held_micro) == (CREDIT_MICRO - spent, 0)


def _recorded(batch: str) -> dict[str, int]:
    """The attempt that answered each request, of those that segments hold; no request is held twice."""
    found: dict[str, int] = {}
    for job in Batch.objects.get(public_id=batch).jobs:
        for _number, answered in results.answers_of(job):
            assert answered.finished["request"] not in found
            found[answered.finished["request"]] = answered.finished["attempt"]
    return found


def _more_is_recorded(batch: str, *, than: int) -> None:
    """Waits until the segments hold some more answers, and not all."""
    found = wait_until(lambda: (count := len(_recorded(batch))) > than and count, within_s=300, what="another answer")
    assert found < LINES, "the batch ended before everything was killed"


def _asked(client: openai.OpenAI, batch: str) -> openai.types.Batch | None:
    try:
        return client.batches.retrieve(batch)
    except openai.APIError:
        return None
