from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync

from inference import protocol
from inference.protocol import Delta, FailureCode
from store.billing.models import Reservation, Transaction
from store.catalog.models import Version
from store.generation import dispatch, streams
from store.generation.models import Request
from store.valkey import client
from tests import making
from tests.generation import workplace
from tests.generation.conftest import Ask, Begun
from tests.generation.test_admission import base_of, credited, priced
from tests.generation.test_settlement import wallet
from tests.generation.workplace import claim, engine_beats, finished, says, started, write

collect = async_to_sync(streams.collect)


def read(request: Request, after: str = "0") -> list[tuple[str, dict[str, Any]]]:
    async def all_of_it() -> list[tuple[str, dict[str, Any]]]:
        return [found async for found in streams.read(request.public_id, after=after)]

    return async_to_sync(all_of_it)()


def meanwhile(work: Callable[[], None]) -> None:
    threading.Thread(target=work, daemon=True).start()


def test_events_come_in_order_and_can_be_read_again_from_any_entry(ask: Ask) -> None:
    request, order = ask()
    says(order, "one", " two", " three")

    whole = read(request)

    assert [event["type"] for _, event in whole] == ["started", "delta", "delta", "delta", "finished"]
    assert read(request, after=whole[2][0]) == whole[3:]
    assert collect(request.public_id) == ("one two three", finished(order, tokens=3).to_json())


def test_whoever_reads_renews_the_lease_and_never_over_a_cancellation(ask: Ask) -> None:
    request, order = ask()
    lease = protocol.lease_key(order.id)
    client().expire(lease, 1)
    write(order, started(order))
    meanwhile(lambda: _end_when(lambda: int(client().ttl(lease)) > 1, order))
    collect(request.public_id)

    async_to_sync(streams.cancel)(request.public_id)
    read(request)

    assert client().get(lease) == protocol.CANCELLED


def _end_when(condition: Callable[[], bool], order: protocol.GenerationRequest) -> None:
    while not condition():
        threading.Event().wait(0.01)
    write(order, finished(order), first=2)


def test_an_engine_that_died_before_it_spoke_is_followed_by_another_attempt(ask: Ask) -> None:
    request, order = ask()
    write(order, started(order))  # and no heartbeat

    def second() -> None:
        again = workplace.take(attempt=2)
        engine_beats()
        says(again, "Good", " morning")

    meanwhile(second)
    text, end = collect(request.public_id)

    assert (text, end["attempt"], end["failure"]) == ("Good morning", 2, None)
    request.refresh_from_db()
    assert (request.attempt, request.state) == (2, Request.State.ADMITTED)
    assert streams.text_so_far(request.public_id) == "Good morning"


def test_a_worker_that_died_with_the_request_in_hand_is_followed_by_another_attempt(ask: Ask) -> None:
    request, _ = ask()
    client().zrem(protocol.GENERATION_WORKERS, workplace.WORKER)
    meanwhile(lambda: says(workplace.take(attempt=2), "Hello"))

    assert collect(request.public_id)[0] == "Hello"


def test_an_attempt_that_was_given_up_can_no_longer_be_claimed(ask: Ask) -> None:
    request, order = ask()
    client().delete(protocol.claim_key(order.id, 1))  # it still waits in a queue that nobody reads

    assert dispatch.try_again(request.public_id, attempt=1)

    assert not claim(order)
    assert dispatch.try_again(request.public_id, attempt=1)  # another reader that saw the same
    assert [waiting.attempt for waiting in workplace.waiting()] == [1, 2]
    assert not dispatch.try_again(request.public_id, attempt=2)


def test_an_engine_that_died_in_mid_answer_ends_the_stream_once_with_a_plain_failure(
    ask: Ask, django_capture_on_commit_callbacks: Any
) -> None:
    request, order = ask()
    write(order, started(order), Delta(text="Once upon", tokens=2))

    with django_capture_on_commit_callbacks(execute=True):
        text, end = collect(request.public_id)

    assert (text, end["reason"], end["failure"]) == ("Once upon", "error", FailureCode.ENGINE_DIED)
    assert collect(request.public_id) == (text, end)
    request.refresh_from_db()
    assert (request.state, request.failure, request.cost_micro) == (Request.State.FAILED, "engine_died", 0)
    assert client().zcard(protocol.inflight_key(order.base)) == 0


def test_what_a_killed_worker_had_fetched_and_not_begun_is_sent_again_as_the_same_attempt(begun: Begun) -> None:
    request = begun()
    (fetched,) = workplace.waiting()
    client().delete(protocol.LOAD_QUEUE, protocol.GENERATION_WORKERS)  # with the worker
    workplace.worker_beats("worker-2")
    workplace.time_passes(request.public_id)
    meanwhile(lambda: says(workplace.take(), "Hello"))

    text, end = collect(request.public_id)

    assert (text, end["attempt"], end["reason"]) == ("Hello", 1, "stop")
    assert not claim(fetched)  # should the broker deliver it after all


def test_what_waits_in_the_queue_of_a_base_that_nobody_holds_any_more_is_sent_to_who_can_load_it(begun: Begun, version: Version) -> None:
    base = base_of(version)
    client().zadd(protocol.holders_key(base), {workplace.WORKER: time.time()})
    request = begun()
    client().delete(protocol.holders_key(base))
    workplace.time_passes(request.public_id)
    meanwhile(lambda: says(workplace.take(), "Hello"))

    assert collect(request.public_id)[0] == "Hello"

    (left_behind,) = workplace.waiting(protocol.base_queue(base))
    assert not claim(left_behind)


def test_what_was_sent_lately_is_not_sent_again_however_many_read(begun: Begun) -> None:
    request = begun()
    for _ in range(2):
        dispatch.send_again(request.public_id)
    assert len(workplace.waiting()) == 1
    workplace.time_passes(request.public_id)

    for _ in range(2):
        dispatch.send_again(request.public_id)

    assert [order.attempt for order in workplace.waiting()] == [1, 1]


@pytest.mark.parametrize("broker_is_away", [False, True])
def test_a_request_that_nobody_took_is_not_waited_for_when_nobody_can_take_it(
    begun: Begun, monkeypatch: pytest.MonkeyPatch, broker_is_away: bool
) -> None:
    request = begun()
    (order,) = workplace.waiting()
    workplace.time_passes(request.public_id)
    if broker_is_away:
        monkeypatch.setattr(dispatch, "app", workplace.BROKER_THAT_IS_AWAY)
    else:
        client().delete(protocol.GENERATION_WORKERS)

    text, end = collect(request.public_id)

    assert (text, end["failure"]) == ("", FailureCode.NO_WORKER)
    request.refresh_from_db()
    assert (request.state, request.attempt) == (Request.State.FAILED, 1)
    assert not claim(order)


def test_a_request_that_no_worker_had_time_for_is_answered_with_try_again(begun: Begun) -> None:
    request = begun()
    client().delete(dispatch.order_key(request.public_id))

    assert collect(request.public_id)[1]["failure"] == FailureCode.OVERLOADED


def test_a_request_whose_time_is_over_never_hangs_its_reader(ask: Ask) -> None:
    request, order = ask()
    client().delete(dispatch.order_key(order.id))

    assert collect(request.public_id)[1]["failure"] == FailureCode.INTERNAL


def test_what_is_stopped_before_a_worker_took_it_ends_at_once_and_costs_nothing(
    begun: Begun, version: Version, django_capture_on_commit_callbacks: Any
) -> None:
    user = credited(making.make_user())
    request = begun(version=priced(version), user=user)
    (order,) = workplace.waiting()

    with django_capture_on_commit_callbacks(execute=True):
        for _ in range(2):
            async_to_sync(streams.cancel)(request.public_id)

    assert [event["reason"] for _, event in read(request)] == ["cancelled"]
    request.refresh_from_db()
    assert (request.state, request.cost_micro) == (Request.State.CANCELLED, 0)
    assert wallet(user) == (1_000_000, 0)
    assert Reservation.objects.get(cause=request.cause).state == Reservation.State.VOIDED
    assert not Transaction.objects.filter(cause=request.cause).exists()
    assert client().zcard(protocol.inflight_key(order.base)) == 0
    assert not claim(order)  # by the worker that takes it later


def test_a_request_that_was_stopped_is_not_tried_again_when_its_worker_dies(ask: Ask) -> None:
    request, _ = ask()
    async_to_sync(streams.cancel)(request.public_id)
    client().zrem(protocol.GENERATION_WORKERS, workplace.WORKER)

    _, end = collect(request.public_id)

    assert (end["reason"], end["failure"]) == ("cancelled", None)
    request.refresh_from_db()
    assert (request.state, request.attempt) == (Request.State.CANCELLED, 1)


def test_cancelling_reaches_the_engine_through_the_lease(ask: Ask) -> None:
    request, order = ask()

    async_to_sync(streams.cancel)(request.public_id)

    assert client().get(protocol.lease_key(order.id)) == protocol.CANCELLED
    dispatch.send(order)  # a further attempt does not undo it
    assert client().get(protocol.lease_key(order.id)) == protocol.CANCELLED
