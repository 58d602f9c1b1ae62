"""The chat against the real application, its answers through the real broker; only the engine follows a script."""

from __future__ import annotations

import re
import time

import pytest

from inference import protocol
from store.accounts.sign_in import signed_in
from store.billing import ledger
from store.catalog.models import Listing, Version
from store.generation import dispatch, settlement
from store.generation.models import Request
from store.playground.models import Conversation, Message
from store.valkey import client as valkey
from tests import making
from tests.api.engine import ScriptedEngine, fails, says, waits_to_be_cancelled
from tests.generation import workplace
from tests.playground.conftest import Browser

pytestmark = pytest.mark.django_db(transaction=True)
SECRET = "Answer in one sentence."
TRY = "/en/chat/try/acme/poet/"
START = "/en/chat/start/"


@pytest.fixture(autouse=True)
def model() -> str:
    version = making.make_prompt(making.make_base(slug="base"), making.make_listing(making.make_publisher(slug="acme"), slug="poet"))
    return version.listing.full_name


def address_of(page: str, name: str) -> str:
    """The address that an attribute of the page holds."""
    found = re.search(rf'data-{name}="([^"]+)"', page)
    assert found, f"no data-{name}"
    return found[1]


def test_a_visitor_asks_reads_the_answer_and_finds_it_kept(visitor: Browser, engine: ScriptedEngine, model: str) -> None:
    engine.script = says("**Good**", " morning")

    begun = visitor.act(START, model=model, text="Say hello.\r\nPlease.").json()
    events = visitor.events(address_of(begun["answer"], "events"))

    assert [(name, event.get("text")) for _, name, event in events[:-1]] == [
        ("started", None),
        ("delta", "**Good**"),
        ("delta", " morning"),
    ]
    finished = events[-1][2]
    assert "<strong>Good</strong> morning" in finished["html"]
    assert (finished["reason"], finished["text"], finished["used_tokens"]) == ("stop", "**Good** morning", 9)
    assert engine.orders[0].messages == [{"role": "system", "content": SECRET}, {"role": "user", "content": "Say hello.\nPlease."}]
    settlement.finish(engine.finished[0])
    page = visitor.get(begun["url"])
    assert page.headers["cache-control"] == "max-age=0, no-cache, no-store, must-revalidate, private"
    assert "Say hello.\nPlease." in page.text
    assert "<strong>Good</strong> morning" in page.text
    assert SECRET not in page.text


def test_a_visitor_gets_a_cookie_with_their_first_act_and_never_for_looking(visitor: Browser, engine: ScriptedEngine, model: str) -> None:
    for page in ("/en/", "/en/gpts/acme/poet/", "/en/chat/", f"/en/chat/new/?model={model}"):
        assert visitor.get(page).status_code == 200
        assert not visitor.http.cookies, page

    visitor.act(START, model=model, text="Hello")

    assert set(visitor.http.cookies) == {"csrftoken", "visitor"}


def test_another_persons_conversation_and_events_do_not_exist(
    visitor: Browser, stranger: Browser, engine: ScriptedEngine, model: str
) -> None:
    begun = visitor.act(START, model=model, text="Hello").json()
    events = address_of(begun["answer"], "events")
    stranger.act(START, model=model, text="Hello")
    signed_up = making.make_user()
    message = Message.objects.filter(conversation__public_id=begun["conversation"]).last()
    assert message is not None

    for _ in range(2):
        assert stranger.get(begun["url"]).status_code == 404
        assert stranger.get(f"{begun['url']}export.json").status_code == 404
        assert stranger.get(events).status_code == 404
        assert stranger.act(events.replace("/events", "/stop")).status_code == 404
        assert stranger.act(begun["ask"], text="Mine?").status_code == 404
        assert stranger.act(f"{begun['url']}delete").status_code == 404
        assert stranger.act(f"{begun['url']}rename", title="Mine").status_code == 404
        assert stranger.act(f"/en/chat/messages/{message.public_id}/regenerate").status_code == 404
        stranger.sign_in(signed_up)

    conversation = Conversation.objects.get(public_id=begun["conversation"])
    assert (conversation.title, conversation.messages.count()) == ("Hello", 2)
    assert valkey().get(protocol.lease_key(events.split("/")[-2])) != protocol.CANCELLED


def test_scripts_in_question_and_answer_stay_text(visitor: Browser, engine: ScriptedEngine, model: str) -> None:
    attack = '<script>alert(1)</script><img src=x onerror="alert(2)">'
    engine.script = says(f"{attack} [click](javascript:alert(3))")

    begun = visitor.act(START, model=model, text=attack).json()
    finished = visitor.finished(address_of(begun["answer"], "events"))

    settlement.finish(engine.finished[0])
    page = visitor.get(begun["url"]).text
    for html in (begun["question"], finished["html"], page):
        assert "<script>alert" not in html
        assert "<img" not in html
        assert 'href="javascript' not in html


@pytest.mark.parametrize(
    ("body", "code", "sentence"),
    [
        (b"text=", "invalid_messages", "Message 1 is empty. Write something."),
        (b"text=+%0D%0A+", "invalid_messages", "Message 1 is empty. Write something."),
        (b"text=" + b"a" * 32_001, "invalid_messages", "The text has 32001 characters; at most 32000 are allowed. Shorten it."),
        (b"text=ring%07", "invalid_messages", "Message 1 holds the control character U+0007 at place 5. Remove it."),
        (b"text=nul%00", "invalid_messages", "Message 1 holds the control character U+0000 at place 4. Remove it."),
        (b"text=caf%E9", "invalid_encoding", "What arrived is not valid UTF-8 text. Send it again as UTF-8."),
        (b"text=Hello&temperature=9", "invalid_value", "temperature must lie between 0.0 and 2.0."),
        (b"text=Hello&seed=lucky", "invalid_value", "Seed must be a number."),
    ],
)
def test_what_cannot_be_asked_is_refused_and_nothing_is_written(
    visitor: Browser, engine: ScriptedEngine, model: str, body: bytes, code: str, sentence: str
) -> None:
    addresses = [START, TRY] if b"&" not in body else [START]
    for where in addresses:
        refused = visitor.act(where, body=f"model={model}&".encode() + body)

        assert (refused.status_code, refused.json()["error"]["code"], refused.json()["error"]["message"]) == (400, code, sentence)
    assert [model.objects.count() for model in (Conversation, Message, Request)] == [0, 0, 0]
    assert engine.orders == []


def test_an_unknown_gpt_a_wrong_method_and_a_missing_token_are_refused(visitor: Browser, engine: ScriptedEngine) -> None:
    unknown = visitor.act(START, model="acme/nobody", text="Hello")
    assert (unknown.status_code, unknown.json()["error"]["way_out"]) == (404, {"label": "Find another GPT", "url": "/en/explore/"})
    assert visitor.get(START).status_code == 405
    assert visitor.get("/en/chat/new/?model=acme/nobody").status_code == 404
    assert visitor.http.post(START, data={"text": "Hello"}).status_code == 403
    assert not Conversation.objects.exists()


def test_no_worker_is_said_at_once_and_writes_nothing(visitor: Browser, model: str) -> None:
    refused = visitor.act(START, model=model, text="Hello")

    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "no_worker")
    assert not Conversation.objects.exists()


@pytest.mark.usefixtures("valkey_away")
def test_without_valkey_a_script_hears_that_the_store_is_away(visitor: Browser, model: str) -> None:
    refused = visitor.act(START, model=model, text="Hello")

    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
    assert not Conversation.objects.exists()


def test_of_a_first_question_that_the_broker_did_not_take_no_conversation_is_kept(
    visitor: Browser, engine: ScriptedEngine, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "app", workplace.BROKER_THAT_IS_AWAY)

    refused = visitor.act(START, model=model, text="Hello")

    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "no_worker")
    assert Request.objects.get().state == Request.State.FAILED
    assert not Conversation.objects.exists()


def test_a_question_that_the_broker_did_not_take_is_refused_and_kept_as_failed(
    visitor: Browser, engine: ScriptedEngine, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = visitor.act(START, model=model, text="Hello").json()
    visitor.finished(address_of(begun["answer"], "events"))
    monkeypatch.setattr(dispatch, "app", workplace.BROKER_THAT_IS_AWAY)

    refused = visitor.act(begun["ask"], text="And now?")

    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "no_worker")
    assert Request.objects.filter(state=Request.State.FAILED, failure="no_worker").count() == 1
    page = visitor.get(begun["url"]).text
    assert "No worker is running that could answer." in page
    assert 'id="composer"' in page


def test_who_used_up_the_tries_is_shown_the_way_to_an_account(
    visitor: Browser, engine: ScriptedEngine, model: str, settings: object
) -> None:
    settings.VISITOR_TRIES_PER_DAY = 1  # type: ignore[attr-defined]
    visitor.finished(visitor.act(TRY, text="Hello").json()["events"])

    refused = visitor.act(TRY, text="Hello")

    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) > 3600
    assert refused.json()["error"]["way_out"]["url"].startswith("/en/account/signup/")
    assert Request.objects.count() == 1


def test_regenerating_replaces_the_answer_and_editing_replaces_both(visitor: Browser, engine: ScriptedEngine, model: str) -> None:
    begun = visitor.act(START, model=model, text="First").json()
    visitor.finished(address_of(begun["answer"], "events"))

    engine.script = says("Second thought")
    again = visitor.act(address_of(begun["answer"], "regenerate")).json()
    visitor.finished(address_of(again["answer"], "events"))
    edited = visitor.act(address_of(again["question"], "edit"), text="Other words").json()
    visitor.finished(address_of(edited["answer"], "events"))

    assert [order.messages[1:] for order in engine.orders] == [
        [{"role": "user", "content": "First"}],
        [{"role": "user", "content": "First"}],
        [{"role": "user", "content": "Other words"}],
    ]
    stale = visitor.act(address_of(begun["answer"], "regenerate"))
    assert (stale.status_code, len(engine.orders)) == (409, 3)
    for event in engine.finished:
        settlement.finish(event)
    shown = Message.objects.filter(replaced_at=None).values_list("role", "text")
    assert list(shown) == [("user", "Other words"), ("assistant", "Second thought")]
    assert Message.objects.count() == 5


def test_the_next_question_goes_with_what_was_said_before(visitor: Browser, engine: ScriptedEngine, model: str) -> None:
    begun = visitor.act(START, model=model, text="First").json()
    visitor.finished(address_of(begun["answer"], "events"))

    asked = visitor.act(begun["ask"], text="Second", temperature="0", max_tokens="12", seed="7")

    visitor.finished(address_of(asked.json()["answer"], "events"))
    order = engine.orders[1]
    assert [message["content"] for message in order.messages] == [SECRET, "First", "Hello there", "Second"]
    assert (order.sampling["temperature"], order.sampling["max_tokens"], order.sampling["seed"]) == (0, 12, 7)
    assert Conversation.objects.get().parameters == {"temperature": 0, "max_tokens": 12, "seed": 7}


def test_stopping_keeps_what_was_said_and_a_second_question_waits_for_the_end(visitor: Browser, engine: ScriptedEngine, model: str) -> None:
    engine.script = waits_to_be_cancelled
    begun = visitor.act(START, model=model, text="Count").json()
    deadline = time.monotonic() + 10
    while not engine.orders or not valkey().exists(protocol.stream_key(engine.orders[0].id)):
        assert time.monotonic() < deadline
        time.sleep(0.01)

    too_early = visitor.act(begun["ask"], text="Hurry")
    visitor.act(address_of(begun["answer"], "stop"))
    finished = visitor.finished(address_of(begun["answer"], "events"))

    assert (too_early.status_code, too_early.json()["error"]["code"]) == (409, "still_answering")
    assert (finished["reason"], finished["text"]) == ("cancelled", "Once")
    settlement.finish(engine.finished[0])
    assert list(Message.objects.values_list("text", flat=True)) == ["Count", "Once"]


def test_a_question_is_stopped_before_a_worker_took_it_and_another_asked(visitor: Browser, model: str) -> None:
    workplace.worker_beats()
    begun = visitor.act(START, model=model, text="Count").json()

    visitor.act(address_of(begun["answer"], "stop"))

    finished = visitor.finished(address_of(begun["answer"], "events"))
    assert (finished["reason"], finished["text"], finished["trouble"]) == ("cancelled", "", "")
    request = Request.objects.get()
    assert request.state == Request.State.CANCELLED
    (order,) = workplace.waiting()
    assert not workplace.claim(order)
    assert valkey().zcard(protocol.inflight_key(order.base)) == 0
    assert visitor.act(begun["ask"], text="Tell me").status_code == 200


def test_an_answer_that_nobody_reads_is_kept(visitor: Browser, engine: ScriptedEngine, model: str) -> None:
    begun = visitor.act(START, model=model, text="Hello").json()
    deadline = time.monotonic() + 10
    while not engine.finished:
        assert time.monotonic() < deadline
        time.sleep(0.01)

    settlement.finish(engine.finished[0])

    assert Message.objects.get(role="assistant").text == "Hello there"
    valkey().flushdb()
    assert "Hello there" in visitor.get(begun["url"]).text


def test_a_stream_is_resumed_after_the_last_event_that_was_seen(visitor: Browser, engine: ScriptedEngine, model: str) -> None:
    engine.script = says("one", " two", " three")
    events = address_of(visitor.act(START, model=model, text="Count").json()["answer"], "events")
    seen = visitor.events(events)

    resumed = visitor.events(events, after=seen[2][0])

    assert [event["text"] for _, name, event in resumed if name == "delta"] == [" three"]
    assert resumed[-1][2]["text"] == "one two three"


def test_a_page_opened_in_mid_answer_finds_its_stream(visitor: Browser, engine: ScriptedEngine, model: str) -> None:
    engine.script = waits_to_be_cancelled
    begun = visitor.act(START, model=model, text="Count").json()

    page = visitor.get(begun["url"]).text

    assert address_of(page, "events") == address_of(begun["answer"], "events")
    visitor.act(address_of(page, "stop"))


def test_a_failure_says_what_happened_in_the_readers_language(visitor: Browser, engine: ScriptedEngine, model: str) -> None:
    engine.script = fails(protocol.FailureCode.CONTEXT_LENGTH_EXCEEDED)
    begun = visitor.act(START, model=model, text="Hello").json()

    finished = visitor.finished(address_of(begun["answer"], "events"))

    assert finished["trouble"] == "The messages are longer than this GPT can read at once. Shorten them."
    assert finished["trouble"] in finished["html"]
    settlement.finish(engine.finished[0])
    assert finished["trouble"] in visitor.get(begun["url"]).text


def test_a_try_goes_on_in_chat_with_its_answer(visitor: Browser, stranger: Browser, engine: ScriptedEngine) -> None:
    tried = visitor.act(TRY, text="Hello").json()
    visitor.finished(tried["events"])
    assert stranger.act(tried["keep"], text="Hello").status_code == 404

    kept, again = (visitor.act(tried["keep"], text="Hello").json() for _ in range(2))

    assert kept == again
    assert list(Message.objects.values_list("role", "text")) == [("user", "Hello"), ("assistant", "Hello there")]
    assert Conversation.objects.get().title == "Hello"


def test_what_a_visitor_said_becomes_theirs_when_they_sign_in(visitor: Browser, engine: ScriptedEngine, model: str) -> None:
    begun = visitor.act(START, model=model, text="Hello").json()
    events = address_of(begun["answer"], "events")
    user = making.make_user()
    conversation = Conversation.objects.get()

    signed_in(user, conversation.visitor)
    visitor.sign_in(user)

    assert visitor.get(begun["url"]).status_code == 200
    assert visitor.finished(events)["text"] == "Hello there"
    conversation.refresh_from_db()
    assert (conversation.user, conversation.visitor) == (user, "")
    assert Request.objects.get().user == user


def test_a_conversation_is_renamed_exported_and_deleted(visitor: Browser, engine: ScriptedEngine, model: str) -> None:
    begun = visitor.act(START, model=model, text="Hello").json()
    visitor.finished(address_of(begun["answer"], "events"))

    assert visitor.act(f"{begun['url']}rename", title="  A  greeting ").status_code == 200
    assert visitor.act(f"{begun['url']}rename", title=" ").status_code == 400
    exported = visitor.get(f"{begun['url']}export.json")
    markdown = visitor.get(f"{begun['url']}export.md")

    assert exported.json()["title"] == "A greeting"
    assert exported.json()["model"] == f"{model}@1.0.0"
    assert [(said["role"], said["content"]) for said in exported.json()["messages"]] == [("user", "Hello"), ("assistant", "Hello there")]
    assert markdown.text == f"# A greeting\n\n{model}@1.0.0\n\n## You\n\nHello\n\n## {model}\n\nHello there\n\n"
    assert markdown.headers["content-disposition"] == f'attachment; filename="{begun["conversation"]}.md"'
    assert SECRET not in exported.text + markdown.text
    assert visitor.act(f"{begun['url']}delete").status_code == 200
    assert [model.objects.count() for model in (Conversation, Message)] == [0, 0]
    assert Request.objects.count() == 1


def test_a_form_sent_without_a_script_leads_to_the_answer(visitor: Browser, engine: ScriptedEngine, model: str) -> None:
    sent = visitor.act(START, script=False, model=model, text="Hello")

    assert sent.status_code == 302
    assert "Hello there" in visitor.get(sent.headers["location"]).text


def test_of_a_long_conversation_only_the_newest_exchanges_that_fit_are_read_again(
    visitor: Browser, engine: ScriptedEngine, model: str
) -> None:
    begun = visitor.act(START, model=model, text="Old " * 3000).json()
    visitor.finished(address_of(begun["answer"], "events"))
    for text in ("New", "Last " * 3500):
        visitor.finished(address_of(visitor.act(begun["ask"], text=text).json()["answer"], "events"))

    assert [message["content"][:4] for message in engine.orders[1].messages] == ["Answ", "Old ", "Hell", "New"]
    assert [message["content"][:4] for message in engine.orders[2].messages] == ["Answ", "New", "Hell", "Last"]


def test_with_a_gpt_that_was_suspended_a_conversation_stays_readable_and_goes_no_further(
    visitor: Browser, engine: ScriptedEngine, model: str
) -> None:
    begun = visitor.act(START, model=model, text="Hello").json()
    visitor.finished(address_of(begun["answer"], "events"))
    Version.objects.filter(listing__slug="base").update(state=Version.State.SUSPENDED)

    refused = visitor.act(begun["ask"], text="And now?")

    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
    assert refused.json()["error"]["way_out"]["url"] == "/en/explore/"
    page = visitor.get(begun["url"]).text
    assert "Hello there" in page
    assert 'id="composer"' not in page
    assert Message.objects.count() == 2


def test_the_page_is_told_the_prices_by_which_the_cost_runs_on(visitor: Browser, engine: ScriptedEngine, model: str) -> None:
    person = making.make_user()
    ledger.grant(None, person, 1_000_000, cause="grant:test", memo="To try")
    visitor.sign_in(person)
    free = visitor.act(START, model=model, text="Hello").json()
    Listing.objects.filter(slug="poet").update(input_price_micro=3, output_price_micro=5)
    priced = visitor.act(START, model=model, text="Hello").json()

    _entry, _name, started = visitor.events(address_of(free["answer"], "events"))[0]
    assert started == {"prompt_tokens": 7, "attempt": 1}
    _entry, _name, started = visitor.events(address_of(priced["answer"], "events"))[0]
    assert started == {"prompt_tokens": 7, "attempt": 1, "input_price_micro": 3, "output_price_micro": 5}
