from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.db import connection

from inference import protocol
from inference.protocol import Delta, FailureCode
from store.accounts.models import User
from store.billing import ledger
from store.billing.models import Reservation, Transaction
from store.catalog.models import Listing, Version
from store.generation import settlement
from store.generation.admission import admit
from store.generation.models import Request
from store.generation.tasks import finished as finished_task
from store.valkey import client
from tests import making
from tests.generation import workplace
from tests.generation.conftest import HELLO, Ask
from tests.generation.test_admission import credited, priced
from tests.generation.workplace import finished, started, write


def wallet(user: User) -> tuple[int, int]:
    account = ledger.wallet_of(user)
    account.refresh_from_db()
    return account.balance_micro, account.held_micro


def test_a_finished_request_is_recorded_and_charged_at_the_agreed_price(version: Version, ask: Ask) -> None:
    user = credited(making.make_user())
    request, order = ask(version=priced(version), user=user)
    Listing.objects.filter(pk=version.listing_id).update(output_price_micro=900_000_000)

    finished_task(finished(order, tokens=3).to_json())

    request.refresh_from_db()
    assert (request.state, request.finish_reason) == (Request.State.FINISHED, "stop")
    assert (request.prompt_tokens, request.completion_tokens, request.cached_tokens) == (20, 3, 5)
    assert (request.cost_micro, request.first_token_ms, request.duration_ms) == (20 * 1 + 3 * 2, 40.0, 140.0)
    assert wallet(user) == (1_000_000 - 26, 0)
    assert Listing.objects.get(pk=version.listing_id).request_count == 1


def test_what_was_built_on_a_base_before_it_got_a_price_pays_the_base(version: Version, ask: Ask) -> None:
    base, user = version.weights(), credited(making.make_user())
    priced(base)
    request, order = ask(version=Version.objects.get(pk=version.pk), user=user)

    settlement.finish(finished(order, tokens=3))

    request.refresh_from_db()
    assert (request.input_price_micro, request.output_price_micro, request.cost_micro) == (1_000_000, 2_000_000, 26)
    assert wallet(user) == (1_000_000 - 26, 0)
    assert ledger.earnings_of(base.listing.publisher).balance_micro == 21  # but the fifth that the store keeps
    assert ledger.earnings_of(version.listing.publisher).balance_micro == 0


@pytest.mark.django_db(transaction=True)
def test_reports_that_come_at_once_and_again_settle_once() -> None:
    workplace.worker_beats()
    user = credited(making.make_user())
    version = priced(making.make_base())
    request = admit(version, messages=HELLO, sampling={}, user=user, source=Request.Source.API)
    order = workplace.take()

    def report(_: int) -> bool:
        try:
            return settlement.finish(finished(order, tokens=3))
        finally:
            connection.close()

    with ThreadPoolExecutor(6) as pool:
        settled = list(pool.map(report, range(8)))

    assert settled.count(True) == 1
    assert Transaction.objects.filter(cause=request.cause).count() == 1
    assert wallet(user) == (1_000_000 - 26, 0)
    assert Listing.objects.get(pk=version.listing_id).request_count == 1
    assert client().zcard(protocol.inflight_key(order.base)) == 0


def test_a_stopped_answer_is_charged_for_what_was_said_and_a_failed_one_for_nothing(version: Version, ask: Ask) -> None:
    user = credited(making.make_user())
    priced(version)
    for reason, failure, cost in (("cancelled", None, 22), ("error", FailureCode.TEMPLATE_FAILED, 0)):
        request, order = ask(user=user)
        client().delete(protocol.LOAD_QUEUE)

        settlement.finish(finished(order, tokens=1, reason=reason, failure=failure))

        request.refresh_from_db()
        assert (request.finish_reason, request.cost_micro) == (reason, cost)
    assert wallet(user) == (1_000_000 - 22, 0)
    assert Listing.objects.get(pk=version.listing_id).request_count == 0


def test_an_engine_reported_dead_before_it_spoke_is_tried_again_and_its_report_ignored(ask: Ask) -> None:
    request, order = ask()
    died = finished(order, reason="error", failure=FailureCode.ENGINE_DIED)

    assert not settlement.finish(died)

    again = workplace.take(attempt=2)
    assert not settlement.finish(died)
    assert not settlement.finish(finished(order, tokens=3))  # of the attempt that was given up
    request.refresh_from_db()
    assert (request.state, request.attempt) == (Request.State.ADMITTED, 2)
    assert settlement.finish(finished(again, tokens=3))


def test_an_engine_reported_dead_in_mid_answer_fails_the_request(ask: Ask) -> None:
    request, order = ask()
    write(order, started(order), Delta(text="Once", tokens=1))

    assert settlement.finish(finished(order, reason="error", failure=FailureCode.ENGINE_DIED))

    request.refresh_from_db()
    assert (request.state, request.failure) == (Request.State.FAILED, "engine_died")


def test_what_no_report_came_for_is_void_and_a_late_report_changes_nothing(version: Version, ask: Ask, settings: Any) -> None:
    user = credited(making.make_user())
    request, order = ask(version=priced(version), user=user)
    assert settlement.void_stale() == 0

    with time_machine.travel(request.deadline_at + settlement.GRACE + timedelta(seconds=1), tick=False):
        assert settlement.void_stale() == 1
        assert settlement.void_stale() == 0
        late = settlement.finish(finished(order, tokens=3))

    assert not late
    request.refresh_from_db()
    assert (request.state, request.cost_micro) == (Request.State.VOIDED, 0)
    assert Reservation.objects.get(cause=request.cause).state == Reservation.State.VOIDED
    assert wallet(user) == (1_000_000, 0)


def test_higher_apps_hear_of_an_end_in_its_transaction(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[tuple[str, str]] = []
    monkeypatch.setattr(settlement, "_on_finished", [])
    settlement.on_finished(lambda request, event: heard.append((request.state, event.reason)))
    _, order = ask()

    settlement.finish(finished(order, tokens=3))
    settlement.finish(finished(order, tokens=3))

    assert heard == [("finished", "stop")]
