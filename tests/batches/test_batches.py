"""A batch from its file to its results: every line is answered once or says why not, in order, and paid for once."""

from __future__ import annotations

import io
from datetime import timedelta
from typing import Any

import pytest
from django.conf import LazySettings
from django.utils import timezone

from inference.protocol import LOAD_QUEUE, Answered, Delta, GenerationRequest, Outcome, Verdict, batch_queue, holders_key
from store.batches import ending, preparing, reconciliation, results, sending, starting
from store.batches.errors import BatchRejected, NotCancellable, TooManyBatches
from store.batches.models import Batch
from store.billing import ledger
from store.billing.models import Reservation, Transaction
from store.catalog import publishing
from store.catalog.models import Listing, Version
from store.errors import NotFound
from store.jobs import claims, files
from store.jobs import sending as job_sending
from store.jobs.models import Job
from store.moderation import decisions
from store.notifications.models import Notification
from store.valkey import client
from tests import making
from tests.batches.answering import (
    answer,
    answer_all,
    begun,
    claim,
    errors,
    fails,
    fresh,
    jobs_of,
    line_of,
    output,
    says,
    segment,
    start,
)
from tests.jobs.working import queued

pytestmark = pytest.mark.django_db


@pytest.fixture
def version() -> Version:
    return making.make_prompt()


@pytest.fixture
def user() -> Any:
    return making.make_user()


def priced(version: Version, micro: int = 1_000_000) -> Version:
    """One micro-unit for each token that is read, two for each that is written."""
    owner = making.owner_of(version.listing.publisher)
    publishing.set_prices(owner, version.listing, input_price_micro=micro, output_price_micro=2 * micro)
    return version


# ---------------------------------------------------------------- its lines


def test_the_answers_stand_in_the_order_of_the_requests_whatever_shard_ends_first(
    user: Any, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "SHARD_LINES", 2)
    batch = begun(user, version, 5)
    assert [job.params["number"] for job in jobs_of(batch)] == [0, 1, 2]

    for job in reversed(jobs_of(batch)):
        answer(job)
    assert results.write_results(batch.public_id)

    batch = fresh(batch)
    assert batch.state == "completed"
    assert [line["custom_id"] for line in output(batch)] == ["id-1", "id-2", "id-3", "id-4", "id-5"]
    contents = [line["response"]["body"]["choices"][0]["message"]["content"] for line in output(batch)]
    assert contents == ["Answer 1", "Answer 2", "Answer 3", "Answer 4", "Answer 5"]
    assert batch.error_file is None
    assert (batch.total, batch.completed, batch.failed) == (5, 5, 0)
    assert (batch.prompt_tokens, batch.completion_tokens, batch.cached_tokens) == (25, 10, 5)


def test_a_line_that_is_wrong_is_an_error_of_its_own(user: Any, version: Version) -> None:
    name = version.listing.full_name
    good = line_of("good", name)
    wrong = [
        b"{not json",
        b"[1]",
        good | {"custom_id": 7},
        good | {"custom_id": "verb", "method": "GET"},
        good | {"custom_id": "place", "url": "/v1/embeddings"},
        good | {"custom_id": "nothing", "body": None},
        line_of("nobody", "no/body"),
        line_of("hot", name, temperature=9),
        line_of("stream", name, stream=True),
        line_of("empty", name, content=" "),
    ]
    batch = start(user, [*wrong, good, line_of("other", making.make_prompt().listing.full_name)])

    assert preparing.prepare(batch.public_id)
    batch = answer_all(batch)

    assert [line["custom_id"] for line in output(batch)] == ["good"]
    found = [(line["custom_id"], _code(line), _status(line)) for line in errors(batch)]
    assert found == [
        (None, "invalid_line", None),
        (None, "invalid_line", None),
        (None, "invalid_line", None),
        ("verb", "invalid_line", None),
        ("place", "invalid_line", None),
        ("nothing", "invalid_line", None),
        ("nobody", "model_not_found", 404),
        ("hot", "invalid_value", 400),
        ("stream", "invalid_value", 400),
        ("empty", "invalid_messages", 400),
        ("other", "mismatched_model", 400),
    ]
    assert errors(batch)[1]["error"]["line"] == 2
    assert (batch.state, batch.total, batch.completed, batch.failed) == ("completed", 12, 1, 11)


def _code(line: dict[str, Any]) -> str:
    return line["error"]["code"] if line["error"] else line["response"]["body"]["error"]["code"]


def _status(line: dict[str, Any]) -> int | None:
    return line["response"]["status_code"] if line["response"] else None


def test_of_lines_with_one_custom_id_the_first_is_answered(user: Any, version: Version) -> None:
    name = version.listing.full_name
    batch = start(user, [line_of("a", name, "First"), line_of("b", name), line_of("a", name, "Second")])
    preparing.prepare(batch.public_id)
    asked: list[str] = []

    def remember(number: int, request: GenerationRequest) -> Answered:
        asked.append(request.messages[-1]["content"])
        return says(number, request)

    batch = answer_all(batch, say=remember)

    assert asked == ["First", "Hello"]
    assert [line["custom_id"] for line in output(batch)] == ["a", "b"]
    (duplicate,) = errors(batch)
    assert (duplicate["custom_id"], duplicate["error"]["code"], duplicate["error"]["line"]) == ("a", "duplicate_custom_id", 3)
    assert "line 1" in duplicate["error"]["message"]


def test_what_is_answered_is_what_the_api_answers(user: Any, version: Version) -> None:
    name = version.listing.full_name
    weather = {
        "type": "function",
        "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
    }
    lines = [line_of("calls", name, tools=[weather], tool_choice="required"), line_of("two", name, n=2, logprobs=True)]
    batch = start(user, lines)
    preparing.prepare(batch.public_id)

    def say(number: int, request: GenerationRequest) -> Answered:
        if number == 1:
            return says(number, request, '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>')
        told = says(number, request)
        logprobs = [{"token": "A", "logprob": -0.5, "bytes": [65], "top_logprobs": []}]
        pieces = [Delta(text=f"Choice {i}", tokens=2, choice=i, reason="stop", logprobs=logprobs).to_json() for i in (0, 1)]
        return Answered(number, pieces, told.finished)

    calls, two = output(answer_all(batch, say=say))

    body = calls["response"]["body"]
    assert (calls["response"]["status_code"], body["object"], body["model"]) == (200, "chat.completion", name)
    assert body["id"] == f"chatcmpl-{calls['response']['request_id']}"
    (choice,) = body["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["tool_calls"][0]["function"]["name"] == "weather"
    assert [choice["message"]["content"] for choice in two["response"]["body"]["choices"]] == ["Choice 0", "Choice 1"]
    assert two["response"]["body"]["choices"][0]["logprobs"]["content"][0]["token"] == "A"
    assert two["response"]["body"]["usage"]["total_tokens"] == 7


def test_a_request_at_which_the_model_fails_says_so_as_the_api_does(user: Any, version: Version) -> None:
    batch = answer_all(begun(user, version, 2), say=lambda number, request: (fails if number == 1 else says)(number, request))

    (failure,) = errors(batch)
    assert (failure["custom_id"], failure["response"]["status_code"], _code(failure)) == ("id-1", 400, "context_length_exceeded")
    assert [line["custom_id"] for line in output(batch)] == ["id-2"]


# ---------------------------------------------------------------- what can't be a batch


def test_a_file_without_requests_or_with_too_many_fails_and_says_why(user: Any, version: Version, settings: LazySettings) -> None:
    settings.MAX_BATCH_LINES = 2
    blank = start(user, [b"", b"  "], name="blank.jsonl")
    long = start(user, [line_of(f"{n}", version.listing.full_name) for n in range(3)], name="long.jsonl")

    for batch in (blank, long):
        preparing.prepare(batch.public_id)

    assert [(fresh(batch).state, fresh(batch).errors[0]["code"]) for batch in (blank, long)] == [("failed", "invalid_batch")] * 2
    assert "more than the 2 requests" in fresh(long).errors[0]["message"]
    assert Job.objects.count() == 0
    assert Notification.objects.filter(user=user, kind="job_failed").count() == 2


def test_a_batch_has_a_file_of_its_owner_and_only_so_many_are_under_way(user: Any, version: Version, settings: LazySettings) -> None:
    settings.BATCHES_PER_PERSON = 1
    theirs = files.save(making.make_user(), None, name="a.jsonl", stream=io.BytesIO(b"{}"), purpose="batch")

    with pytest.raises(BatchRejected):
        starting.start(user, theirs.public_id)
    start(user, [line_of("a", version.listing.full_name)])
    with pytest.raises(TooManyBatches):
        start(user, [line_of("b", version.listing.full_name)], name="b.jsonl")

    assert Batch.objects.count() == 1


# ---------------------------------------------------------------- its shards


def test_a_persons_shards_have_their_turn_a_few_at_a_time_the_oldest_batch_first(
    user: Any, version: Version, settings: LazySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.BATCH_SHARDS_PER_PERSON = 2
    monkeypatch.setattr(preparing, "SHARD_LINES", 1)
    first, second = begun(user, version, 3), begun(user, version, 1, temperature=0.5)

    assert [len(jobs_of(batch)) for batch in (first, second)] == [2, 0]
    answer(jobs_of(first)[0])
    assert [len(jobs_of(batch)) for batch in (first, second)] == [3, 0]
    answer(jobs_of(first)[1])
    assert [len(jobs_of(batch)) for batch in (first, second)] == [3, 1]
    answer(jobs_of(first)[2])

    assert (fresh(first).state, fresh(second).state) == ("finalizing", "in_progress")


def test_a_shard_waits_for_those_who_hold_its_base(user: Any, version: Version, django_capture_on_commit_callbacks: Any) -> None:
    base = version.weights().artifact.digest

    with django_capture_on_commit_callbacks(execute=True):
        begun(user, version, 1)
    client().zadd(holders_key(base), {"worker-1": timezone.now().timestamp()})
    Job.objects.update(dispatched_at=None)
    job_sending.send_due()

    (by_placement,), (by_base,) = queued(LOAD_QUEUE), queued(batch_queue(base))
    assert by_placement == by_base
    assert (by_base["kind"], by_base["params"]["base"]) == ("batch", base)


def test_a_shard_at_which_the_workers_fail_leaves_the_others_their_answers(
    user: Any, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "SHARD_LINES", 2)
    batch = begun(user, version, 4)
    first, second = jobs_of(batch)
    claim(first)
    claims.segment(segment(first, only=[1]))

    claims.failed(Outcome(job=first.public_id, attempt=1, claim="worker", error="No.", code="artifact_unusable"))
    answer(second)
    results.write_results(batch.public_id)

    batch = fresh(batch)
    assert [line["custom_id"] for line in output(batch)] == ["id-1", "id-3", "id-4"]
    assert [(line["custom_id"], _code(line)) for line in errors(batch)] == [("id-2", "artifact_unusable")]


def test_what_a_worker_says_and_nobody_understands_takes_no_other_answer_with_it(user: Any, version: Version) -> None:
    def say(number: int, request: GenerationRequest) -> Answered:
        told = says(number, request)
        return told if number == 2 else Answered(number, [{"choice": 7}] if number == 1 else told.choices, {"reason": "stop"})

    batch = answer_all(begun(user, version, 3), say=say)

    assert (batch.state, batch.completed, batch.failed) == ("completed", 1, 2)
    assert [line["custom_id"] for line in output(batch)] == ["id-2"]
    assert [(line["custom_id"], _code(line)) for line in errors(batch)] == [("id-1", "internal_error"), ("id-3", "internal_error")]


# ---------------------------------------------------------------- its end


def test_a_cancelled_batch_keeps_what_was_answered_and_costs_only_that(user: Any, version: Version) -> None:
    priced(version)
    ledger.grant(None, user, 10_000_000, cause="grant:batch")
    batch = begun(user, version, 3)
    (job,) = jobs_of(batch)
    claim(job)
    claims.segment(segment(job, only=[2]))

    ending.cancel(user, batch)
    ending.stop(batch.pk)
    assert claims.heartbeat(claims.Claim(job=job.public_id, attempt=1, claim="worker", worker="worker")) is Verdict.CANCEL
    assert not results.write_results(batch.public_id)  # a worker may still say what it has answered
    assert claims.segment(segment(job, only=[1])) is Verdict.CANCEL
    claims.failed(Outcome(job=job.public_id, attempt=1, claim="worker", error="Cancelled.", code="cancelled"))
    assert results.write_results(batch.public_id)

    batch = fresh(batch)
    assert batch.state == "cancelled"
    assert [line["custom_id"] for line in output(batch)] == ["id-1", "id-2"]
    assert [(line["custom_id"], _code(line)) for line in errors(batch)] == [("id-3", "batch_cancelled")]
    assert batch.cost_micro == 2 * (5 + 2 * 2)
    assert _balance(user) == (10_000_000 - batch.cost_micro, 0)
    with pytest.raises(NotCancellable):
        ending.cancel(user, batch)


def test_a_batch_that_expires_keeps_what_was_answered_by_then(user: Any, version: Version) -> None:
    batch = begun(user, version, 2)
    (job,) = jobs_of(batch)
    claim(job)
    claims.segment(segment(job, only=[1]))
    unread = start(user, [line_of("late", version.listing.full_name)], name="late.jsonl")
    Batch.objects.update(expires_at=timezone.now() - timedelta(seconds=1))

    reconciliation.reconcile()
    assert fresh(batch).state == "finalizing"
    claims.failed(Outcome(job=job.public_id, attempt=1, claim="worker", error="Cancelled.", code="cancelled"))
    results.write_results(batch.public_id)

    batch = fresh(batch)
    assert batch.state == "expired"
    assert [line["custom_id"] for line in output(batch)] == ["id-1"]
    assert [(line["custom_id"], _code(line)) for line in errors(batch)] == [("id-2", "batch_expired")]
    assert (fresh(unread).state, preparing.prepare(unread.public_id)) == ("expired", False)


def test_a_batch_whose_gpt_is_suspended_is_cancelled(user: Any, version: Version) -> None:
    batch, other = begun(user, version, 1), begun(user, making.make_prompt(), 1)
    (job,) = jobs_of(batch)
    claim(job)

    decisions.suspend(making.make_reviewer(), version.base, reason="It leaks.")
    reconciliation.reconcile()

    assert claims.heartbeat(claims.Claim(job=job.public_id, attempt=1, claim="worker", worker="worker")) is Verdict.CANCEL

    assert (fresh(batch).state, fresh(other).state) == ("cancelling", "in_progress")
    assert fresh(batch).errors[0]["code"] == "model_not_found"


def test_a_batch_is_cancelled_before_its_file_was_read(user: Any, version: Version) -> None:
    batch = start(user, [line_of("a", version.listing.full_name)])

    ending.cancel(user, batch)

    assert fresh(batch).state == "cancelled"
    assert not preparing.prepare(batch.public_id)
    assert Job.objects.count() == 0


def test_nobody_cancels_the_batch_of_somebody_else(user: Any, version: Version) -> None:
    batch = begun(user, version)

    with pytest.raises(NotFound):
        ending.cancel(making.make_user(is_staff=True), batch)

    assert fresh(batch).state == "in_progress"


# ---------------------------------------------------------------- its money


def _balance(user: Any) -> tuple[int, int]:
    wallet = ledger.wallet_of(user)
    wallet.refresh_from_db()
    return wallet.balance_micro, wallet.held_micro


def test_the_most_it_can_cost_is_held_and_what_was_used_is_paid_once(user: Any, version: Version) -> None:
    priced(version)
    ledger.grant(None, user, 10_000_000, cause="grant:batch")

    batch = begun(user, version, 3)
    held = batch.reserved_micro
    assert held > 3 * 8 * 2  # the answers alone
    assert _balance(user) == (10_000_000, held)
    batch = answer_all(batch)

    assert batch.cost_micro == 3 * (5 + 2 * 2)
    assert _balance(user) == (10_000_000 - batch.cost_micro, 0)
    posted = Transaction.objects.get(cause=batch.cause)
    assert (posted.detail["prompt_tokens"], posted.detail["completion_tokens"]) == (15, 6)
    assert not results.write_results(batch.public_id)
    assert Transaction.objects.filter(kind="batch").count() == 1
    assert Listing.objects.get(pk=version.listing_id).request_count == 3


def test_a_batch_that_the_credit_does_not_cover_fails_before_anything_is_asked(user: Any, version: Version) -> None:
    priced(version)
    ledger.grant(None, user, 50, cause="grant:batch")
    batch = start(user, [line_of(f"{n}", version.listing.full_name) for n in range(3)])

    preparing.prepare(batch.public_id)

    batch = fresh(batch)
    assert (batch.state, batch.errors[0]["code"]) == ("failed", "insufficient_credit")
    assert _balance(user) == (50, 0)
    assert Job.objects.count() == 0


def test_a_free_gpt_holds_and_costs_nothing(user: Any, version: Version) -> None:
    batch = answer_all(begun(user, version))

    assert (batch.reserved_micro, batch.cost_micro) == (0, 0)
    assert not Reservation.objects.exists()


# ---------------------------------------------------------------- what is lost and comes twice


def test_a_segment_that_is_told_twice_counts_once(user: Any, version: Version) -> None:
    batch = begun(user, version, 2)
    (job,) = jobs_of(batch)
    claim(job)
    said = segment(job, only=[1])

    assert [claims.segment(said), claims.segment(said)] == [Verdict.GO_ON, Verdict.GO_ON]

    batch = fresh(batch)
    assert (batch.completed, batch.prompt_tokens, batch.completion_tokens) == (1, 5, 2)


def test_a_worker_that_lost_its_shard_changes_nothing_and_the_next_goes_on_from_what_is_recorded(user: Any, version: Version) -> None:
    batch = begun(user, version, 3)
    (job,) = jobs_of(batch)
    claim(job, "first")
    claims.segment(segment(job, by="first", only=[1]))
    late = segment(job, by="first", only=[2])
    claims.failed(Outcome(job=job.public_id, attempt=1, claim="first", error="Lost.", code="worker_lost", retriable=True))
    Job.objects.update(not_before=None)
    job.refresh_from_db()
    task = job_sending.task_of(job)

    claim(job, "second")
    assert claims.segment(late) is Verdict.LOST
    assert claims.segment(segment(job, by="second")) is Verdict.GO_ON
    assert claims.finished(Outcome(job=job.public_id, attempt=2, claim="second"))
    assert results.write_results(batch.public_id)

    batch = fresh(batch)
    assert (task.attempt, task.segment, task.checkpoint) == (2, 1, job.segments.get(number=0).checkpoint)
    assert [line["custom_id"] for line in output(batch)] == ["id-1", "id-2", "id-3"]
    assert (batch.completed, batch.completion_tokens) == (3, 6)


def test_what_the_broker_lost_is_sent_again(user: Any, version: Version, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = start(user, [line_of("a", version.listing.full_name)])
    sent: list[str] = []
    monkeypatch.setattr(sending.app, "send_task", lambda task, args, **_options: sent.append(f"{task} {args[0]}"))

    reconciliation.reconcile()
    reconciliation.reconcile()  # it may be on its way
    assert sent == [f"{sending.PREPARE} {batch.public_id}"]
    Batch.objects.update(sent_at=timezone.now() - 2 * sending.RESEND_AFTER)
    reconciliation.reconcile()
    assert sent == [f"{sending.PREPARE} {batch.public_id}"] * 2

    preparing.prepare(batch.public_id)
    answer(jobs_of(batch)[0])
    reconciliation.reconcile()
    assert sent[2:] == [f"{sending.WRITE_RESULTS} {batch.public_id}"]


def test_a_shard_whose_turn_was_forgotten_gets_it_from_the_reconciler(user: Any, version: Version) -> None:
    batch = begun(user, version)
    Job.objects.all().delete()
    Batch.objects.update(next_shard=0)

    reconciliation.reconcile()

    assert len(jobs_of(batch)) == 1


def test_two_that_check_or_end_a_batch_at_once_do_it_once(user: Any, version: Version) -> None:
    batch = start(user, [line_of("a", version.listing.full_name)])

    assert [preparing.prepare(batch.public_id), preparing.prepare(batch.public_id)] == [True, False]
    answer(jobs_of(batch)[0])
    assert [results.write_results(batch.public_id), results.write_results(batch.public_id)] == [True, False]

    assert len(jobs_of(batch)) == 1
    assert files.of_person(user).filter(purpose="batch_output").count() == 1
