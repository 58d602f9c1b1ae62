"""Who gets what of the APIs: every address × whose API key is sent × every state of the GPT that is named.

What is asked is complete and an engine answers, so that whoever may gets the answer itself, and each refusal is the one it should be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from django.urls import reverse

from store.catalog import publishing
from store.catalog.models import Listing
from store.generation.models import Request
from tests import access, making
from tests.access import ROLES, STATES, World
from tests.api.engine import ScriptedEngine

pytestmark = pytest.mark.django_db(transaction=True)

KEYLESS = ("no key", "revoked", "shut out", "made up")
HOLDERS = (*(role for role in ROLES if role != "visitor"), *KEYLESS)
KEY_STATES = (*STATES, "priced")  # released, and not free: only the role "user" has credit
Row = Mapping[str, int]
Rows = Mapping[str, Row]  # by state


def row(default: int, **special: int) -> Row:
    """Of everybody with a key that is good; the others are told that theirs is not."""
    return {holder: 401 if holder in KEYLESS else special.get(holder, default) for holder in HOLDERS}


def always(one: Row) -> Rows:
    return dict.fromkeys(KEY_STATES, one)


MEMBERS = ("member", "maintainer", "owner")
INSIDERS = (*MEMBERS, "reviewer", "operator")
FOR_INSIDERS = row(404, **dict.fromkeys(INSIDERS, 200))
SUSPENDED = row(404, reviewer=200, operator=200)
OPEN = dict.fromkeys(("released", "unlisted", "priced"), row(200))
# The unpinned name means what was approved. Nothing answers on a suspended base, and what was suspended itself answers reviewers.
FOUND_BY_NAME = always(row(404)) | OPEN | {"suspended": SUSPENDED}
FOUND_BY_VERSION = FOUND_BY_NAME | dict.fromkeys(("draft", "sealed", "refused"), FOR_INSIDERS)
PAID = {"priced": row(402, user=200, **dict.fromkeys(MEMBERS, 200))}  # a publisher does not pay itself
ANSWERED_BY_NAME, ANSWERED_BY_VERSION = FOUND_BY_NAME | PAID, FOUND_BY_VERSION | PAID
NO_KEY_NEEDED = {**row(200), "no key": 200}  # but a key that is not good is refused all the same
OPEN_TO_ALL = always(NO_KEY_NEEDED)
SEEN = always({**FOR_INSIDERS, "no key": 404}) | dict.fromkeys(OPEN, NO_KEY_NEEDED)
WHOEVER = always(dict.fromkeys(("no key", "user", "revoked"), 200))  # the key is not looked at
OF_USER = always(row(404, user=200))
GONE = always(dict.fromkeys(HOLDERS, 404))


def by_name(world: World, state: str) -> str:
    return f"lab/gpt-{state}"


def by_number(world: World, state: str) -> str:
    return f"lab/gpt-{state}@1.0.0"


def by_id(world: World, state: str) -> str:
    return world.versions[state].public_id


@dataclass(frozen=True)
class Question:
    rows: Rows
    arguments: Callable[[World, str], dict[str, Any]] | None = None  # of the address, None: the state makes no difference
    body: Callable[[World, str], dict[str, Any]] | None = None  # of a POST

    @property
    def states(self) -> tuple[str, ...]:
        return KEY_STATES if self.arguments or self.body else ("released",)


def model(name: Callable[[World, str], str], rows: Rows) -> Question:
    return Question(rows, arguments=lambda world, state: {"model": name(world, state)})


def chat(name: Callable[[World, str], str], rows: Rows) -> Question:
    hello = [{"role": "user", "content": "Hello!"}]
    return Question(rows, body=lambda world, state: {"model": name(world, state), "messages": hello, "max_tokens": 8})


def embedding(name: Callable[[World, str], str], rows: Rows) -> Question:
    return Question(rows, body=lambda world, state: {"model": name(world, state), "input": "Hello!"})


def thing(argument: str, name: str) -> Callable[[World, str], dict[str, Any]]:
    """What belongs to the role "user"."""
    return lambda world, state: {argument: world.things[name]}


def nowhere(world: World, state: str) -> dict[str, Any]:
    return {"rest": "x"}


TABLE: dict[str, tuple[Question, ...]] = {
    "openai:models": (Question(always(row(200))),),
    "openai:model": (model(by_name, FOUND_BY_NAME), model(by_number, FOUND_BY_VERSION), model(by_id, FOUND_BY_VERSION)),
    "openai:chat_completions": (
        chat(by_name, ANSWERED_BY_NAME),
        chat(by_id, ANSWERED_BY_VERSION),
    ),
    "openai:embeddings": (
        embedding(by_name, ANSWERED_BY_NAME),
        embedding(by_id, ANSWERED_BY_VERSION),
    ),
    "openai:files": (Question(always(row(200))),),
    "openai:file": (
        Question(OF_USER, arguments=thing("file", "file of requests")),
        Question(OF_USER, arguments=thing("file", "file of answers")),
    ),
    "openai:file_content": (Question(OF_USER, arguments=thing("file", "file of answers")),),
    "v1_batches:batches": (Question(always(row(200))),),
    "v1_batches:batch": (Question(OF_USER, arguments=thing("batch", "batch")),),
    "v1_batches:cancel": (
        Question(always(row(405)), arguments=thing("batch", "batch under way")),
    ),  # tests/batches/test_api.py posts to it
    "openai:unknown": (Question(GONE, arguments=nowhere),),
    "api:listings": (Question(OPEN_TO_ALL),),
    "api:listing": (Question(SEEN, arguments=lambda world, state: {"publisher": "lab", "slug": f"gpt-{state}"}),),
    "api:arena": (Question(OPEN_TO_ALL),),
    "api:schema": (Question(WHOEVER),),
    "api:docs": (Question(WHOEVER),),
    "api:unknown": (Question(GONE, arguments=nowhere),),
}


TOLD = {"openai:chat_completions": '"content": "Hello there"', "openai:embeddings": '"embedding": [0.6'}


@pytest.fixture
def world(db: None, settings: Any) -> World:
    settings.MAX_INFLIGHT_PER_BASE = settings.REQUESTS_PER_MINUTE = 10_000
    world = access.build_world()
    listing = making.make_listing(world.listing("released").publisher, slug="gpt-priced")
    world.versions["priced"] = making.make_prompt(world.versions["released"].weights(), listing)
    publishing.set_prices(world.people["owner"], listing, input_price_micro=1_000_000, output_price_micro=1_000_000)
    return world


def test_every_address_of_the_apis_is_in_the_table() -> None:
    assert sorted(TABLE) == sorted(name for name in access.every_address() if name.startswith(("openai:", "api:", "v1_batches:")))


def test_whose_key_opens_what(world: World, engine: ScriptedEngine) -> None:
    wrong = {}
    for name, questions in TABLE.items():
        for number, question in enumerate(questions):
            for state in question.states:
                if found := _mismatches(world, name, question, state):
                    wrong[f"{name} {number} ({state})"] = found

    assert not wrong, "\n".join(f"{what}: {found}" for what, found in wrong.items())


def test_only_what_is_listed_is_among_the_models(world: World) -> None:
    sold = {listing.full_name for listing in Listing.objects.filter(slug__endswith="-by-the-month")}  # the world's, to be bought
    for holder in HOLDERS:
        response = world.clients["nobody"].get("/v1/models", headers=_headers(world, holder))
        if holder not in KEYLESS:
            names = {entry["id"] for entry in response.json()["data"]}
            assert names == {"base-models/base", "lab/gpt-released", "lab/gpt-priced"} | sold, holder


def _mismatches(world: World, name: str, question: Question, state: str) -> dict[str, Any]:
    path = reverse(name, kwargs=question.arguments(world, state) if question.arguments else {})
    wrong: dict[str, Any] = {}
    for holder, expected in question.rows[state].items():
        headers, begun = _headers(world, holder), Request.objects.count()
        if question.body:
            response = world.clients["nobody"].post(path, question.body(world, state), content_type="application/json", headers=headers)
        else:
            response = world.clients["nobody"].get(path, headers=headers)
        said = "" if response.streaming else response.content.decode()
        if response.status_code != expected:
            wrong[holder] = (expected, response.status_code, said[:200])
        if response.status_code >= 400 and Request.objects.count() > begun:
            wrong[f"{holder} begins a generation"] = response.status_code
        if question.body and response.status_code == 200 and TOLD[name] not in said:
            wrong[f"{holder} is told"] = said[:200]
        if any(f"{access.secret(hidden)} instructions" in said for hidden in STATES):
            wrong[f"{holder} reads instructions"] = said[:200]
    return wrong


def _headers(world: World, holder: str) -> dict[str, str]:
    return {} if holder == "no key" else {"authorization": f"Bearer {world.secrets[holder]}"}
