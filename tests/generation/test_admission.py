from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
import time_machine
from django.db import connection, transaction
from kombu.exceptions import OperationalError

from inference import protocol
from store.accounts.models import User
from store.billing import ledger
from store.billing.errors import InsufficientCredit
from store.billing.models import Reservation
from store.catalog.listings import set_prices
from store.catalog.models import Version
from store.catalog.naming import UnknownModel
from store.errors import TooMany
from store.generation import dispatch, places, settlement
from store.generation.admission import admit
from store.generation.errors import BadMessages, BadSampling, NoWorker, Overloaded, SignInNeeded, TriesUsedUp
from store.generation.models import Request
from store.ratelimit import take
from store.valkey import client
from tests import making
from tests.generation import workplace
from tests.generation.conftest import HELLO, Ask, Begun


def base_of(version: Version) -> str:
    artifact = version.weights().artifact
    assert artifact is not None
    return artifact.digest


def places_taken(version: Version) -> int:
    return int(client().zcard(protocol.inflight_key(base_of(version))))


def priced(version: Version) -> Version:
    listing = version.listing
    set_prices(making.owner_of(listing.publisher), listing, input_price_micro=1_000_000, output_price_micro=2_000_000)
    version.listing.refresh_from_db()
    return version


def refused(error: type[Exception], version: Version, **fields: Any) -> Any:
    """Raises the error and leaves nothing behind."""
    before = Request.objects.count(), places_taken(version)
    fields = {"messages": HELLO, "sampling": {}, "user": None, "visitor": "vis_1", "source": Request.Source.TRY} | fields

    with pytest.raises(error) as raised:
        admit(version, **fields)

    assert (Request.objects.count(), places_taken(version)) == before
    return raised.value


def test_an_order_carries_the_instructions_first_and_the_merged_parameters(version: Version, ask: Ask) -> None:
    request, order = ask(sampling={"temperature": 0, "seed": 7, "stop": None})

    assert order.messages == [{"role": "system", "content": version.instructions}, *HELLO]
    assert order.own_messages == 1
    assert (order.id, order.base, order.adapter, order.tenant) == (request.public_id, base_of(version), None, "vis_1")
    assert (order.sampling["temperature"], order.sampling["max_tokens"], order.sampling["seed"]) == (0, 100, 7)
    assert order.deadline == pytest.approx(request.deadline_at.timestamp(), abs=1)
    assert 0 < int(client().ttl(protocol.lease_key(order.id))) <= protocol.LEASE_S
    assert places_taken(version) == 1


def test_an_adapter_runs_on_its_weights(ask: Ask) -> None:
    adapter = making.make_adapter(making.make_base())

    _, order = ask(version=adapter)

    assert adapter.artifact is not None
    assert (order.base, order.adapter, order.own_messages) == (base_of(adapter), adapter.artifact.digest, 0)


def test_a_base_that_a_worker_holds_is_asked_on_its_own_queue(version: Version, django_capture_on_commit_callbacks: Any) -> None:
    base = base_of(version)
    client().zadd(protocol.holders_key(base), {workplace.WORKER: 2e9})

    with django_capture_on_commit_callbacks(execute=True):
        request = admit(version, messages=HELLO, sampling={}, user=None, visitor="vis_1", source=Request.Source.TRY)

    assert [order.id for order in workplace.waiting(protocol.base_queue(base))] == [request.public_id]
    assert workplace.waiting() == []


def test_without_a_living_worker_nothing_begins_and_no_try_is_used_up(version: Version, settings: Any) -> None:
    client().zadd(protocol.GENERATION_WORKERS, {workplace.WORKER: 1})

    error = refused(NoWorker, version)

    assert error.status == 503
    assert take("tries:visitor:vis_1", limit=settings.VISITOR_TRIES_PER_DAY, per_s=86_400, cost=0).remaining == 30


def test_a_visitor_has_so_many_tries_a_day(version: Version, ask: Ask, settings: Any) -> None:
    settings.VISITOR_TRIES_PER_DAY = 1
    ask()

    error = refused(TriesUsedUp, version)

    assert 86_000 < error.retry_after_s <= 86_400


@pytest.mark.django_db(transaction=True)
def test_what_is_committed_and_cannot_be_sent_ends_at_once_and_costs_nothing(version: Version, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "app", workplace.BROKER_THAT_IS_AWAY)
    user = credited(making.make_user())

    with pytest.raises(NoWorker):
        admit(priced(version), messages=HELLO, sampling={}, user=user, source=Request.Source.API)

    request = Request.objects.get()
    assert (request.state, request.failure, request.cost_micro) == (Request.State.FAILED, "no_worker", 0)
    assert Reservation.objects.get(cause=request.cause).state == Reservation.State.VOIDED
    assert places_taken(version) == 0


def test_what_was_taken_though_the_broker_never_said_so_goes_on(version: Version, begun: Begun, monkeypatch: pytest.MonkeyPatch) -> None:
    def send_and_break(name: str, args: list[Any], **_: Any) -> None:
        assert workplace.claim(protocol.GenerationRequest.from_json(args[0]))
        raise OperationalError("the connection broke before the answer")

    monkeypatch.setattr(dispatch.app, "send_task", send_and_break)

    request = begun()

    request.refresh_from_db()
    assert request.state == Request.State.ADMITTED


def test_a_place_is_free_again_though_the_callers_transaction_was_rolled_back(version: Version, settings: Any) -> None:
    settings.MAX_INFLIGHT_PER_BASE = 1
    with suppress(LookupError), transaction.atomic():
        admit(version, messages=HELLO, sampling={}, user=None, visitor="vis_1", source=Request.Source.CHAT)
        raise LookupError
    assert not Request.objects.exists()

    with time_machine.travel(time.time() + places.COMMITTED_WITHIN_S + 1, tick=True):
        workplace.worker_beats()
        admit(version, messages=HELLO, sampling={}, user=None, visitor="vis_2", source=Request.Source.CHAT)

    assert (Request.objects.count(), places_taken(version)) == (1, 1)


def test_a_place_whose_request_is_committed_is_held_until_its_deadline(version: Version, begun: Begun, settings: Any) -> None:
    settings.MAX_INFLIGHT_PER_BASE = 1
    begun()

    with time_machine.travel(time.time() + places.COMMITTED_WITHIN_S + 1, tick=True):
        workplace.worker_beats()
        refused(Overloaded, version)


def test_a_person_has_so_many_requests_a_minute(version: Version, ask: Ask, settings: Any) -> None:
    settings.REQUESTS_PER_MINUTE = 1
    user = making.make_user()
    ask(user=user)

    assert 0 < refused(TooMany, version, user=user).retry_after_s <= 60


@pytest.mark.django_db(transaction=True)
def test_of_many_that_ask_at_once_only_as_many_begin_as_a_base_has_places(settings: Any) -> None:
    settings.MAX_INFLIGHT_PER_BASE = 3
    workplace.worker_beats()
    version = making.make_base()
    waits: list[float] = []

    def try_once(number: int) -> bool:
        try:
            admit(version, messages=HELLO, sampling={}, user=None, visitor=f"vis_{number}", source=Request.Source.TRY)
        except Overloaded as error:
            waits.append(error.retry_after_s)
            return False
        finally:
            connection.close()
        return True

    with ThreadPoolExecutor(8) as pool:
        begun = list(pool.map(try_once, range(12)))

    assert (begun.count(True), waits) == (3, [2.0] * 9)
    assert Request.objects.count() == places_taken(version) == len(workplace.waiting()) == 3


def test_who_asks_for_much_leaves_places_for_others(
    version: Version, begun: Begun, settings: Any, django_capture_on_commit_callbacks: Any
) -> None:
    settings.MAX_INFLIGHT_PER_BASE = 4
    for _ in range(3):
        begun(user=None, visitor="vis_many")

    refused(Overloaded, version, visitor="vis_many")

    another = begun(user=None, visitor="vis_few")
    assert places_taken(version) == 4
    with django_capture_on_commit_callbacks(execute=True):
        settlement.finish_for_good(settlement.unanswered(another.public_id, attempt=1))
    begun(user=None, visitor="vis_few")
    refused(Overloaded, version, visitor="vis_few")


def test_a_priced_gpt_asks_a_visitor_to_sign_in(version: Version) -> None:
    assert refused(SignInNeeded, priced(version)).status == 401


def test_on_a_base_that_got_a_price_its_publisher_pays_the_base_too_and_a_visitor_signs_in(version: Version, ask: Ask) -> None:
    priced(version.weights())
    built = Version.objects.get(pk=version.pk)
    author = credited(making.owner_of(version.listing.publisher))

    refused(SignInNeeded, built)
    request, _ = ask(version=built, user=author)

    assert (request.input_price_micro, request.output_price_micro) == (1_000_000, 2_000_000)
    assert Reservation.objects.get(cause=request.cause).asks == {version.weights().public_id: [1_000_000, 2_000_000]}


def test_without_enough_credit_nothing_is_held(version: Version) -> None:
    user = making.make_user()

    refused(InsufficientCredit, priced(version), user=user)

    assert not Reservation.objects.exists()


def test_the_most_it_can_cost_is_held_and_the_agreed_price_kept(version: Version, ask: Ask) -> None:
    user = credited(making.make_user())
    priced(version)

    request, _ = ask(user=user)

    longest_prompt = len(version.instructions) + len("Hello") + 2 * 16 + 64
    assert Reservation.objects.get(cause=request.cause).amount_micro == longest_prompt * 1 + 100 * 2
    assert (request.input_price_micro, request.output_price_micro) == (1_000_000, 2_000_000)


def test_each_choice_may_cost_an_answer_and_the_prompt_is_held_once(version: Version, ask: Ask) -> None:
    user = credited(making.make_user())
    priced(version)

    request, order = ask(user=user, sampling={"n": 3, "max_tokens": 100})

    longest_prompt = len(version.instructions) + len("Hello") + 2 * 16 + 64
    assert Reservation.objects.get(cause=request.cause).amount_micro == longest_prompt * 1 + 3 * 100 * 2
    assert order.sampling["n"] == 3


def credited(user: User) -> User:
    ledger.grant(None, user, 1_000_000, cause=f"grant:{user.public_id}")
    return user


def test_its_own_publisher_pays_nothing(version: Version, ask: Ask) -> None:
    request, _ = ask(version=priced(version), user=making.owner_of(version.listing.publisher))

    assert (request.output_price_micro, Reservation.objects.count()) == (0, 0)


def test_a_draft_exists_for_its_members_only(version: Version, ask: Ask) -> None:
    draft = making.draft_prompt(making.make_base())

    refused(UnknownModel, draft)

    request, _ = ask(version=draft, user=making.owner_of(draft.listing.publisher))
    assert request.version == draft


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        ("Hello", "messages"),
        ([{"role": "user", "content": " \n"}], "messages[0].content"),
        ([{"role": "user", "content": "a\x00b"}], "messages[0].content"),
        ([{"role": "user", "content": "a\ud800b"}], "messages[0].content"),
        ([{"role": "user", "content": 3}], "messages[0].content"),
        ([{"role": "wizard", "content": "Hello"}], "messages[0].role"),
        ([*HELLO, {"role": "assistant", "content": "Hi"}], "messages[1].role"),
        ([{"role": "user", "content": "a" * 32_001}], "messages"),
        (HELLO * 201, "messages"),
    ],
)
def test_messages_that_no_model_should_read_are_named(version: Version, messages: Any, param: str) -> None:
    assert refused(BadMessages, version, messages=messages).param == param


@pytest.mark.parametrize(
    ("sampling", "param"),
    [({"temperature": 2.1}, "temperature"), ({"top_p": "high"}, "top_p"), ({"max_tokens": 0}, "max_tokens"), ({"min_p": True}, "min_p")],
)
def test_parameters_outside_their_bounds_are_named(version: Version, sampling: Any, param: str) -> None:
    assert refused(BadSampling, version, sampling=sampling).param == param
