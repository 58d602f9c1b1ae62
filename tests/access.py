"""A small world with something in every state and somebody in every role, and what each gets when they ask for an address."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.db import connection, reset_queries, transaction
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils import timezone

from store.accounts import keys
from store.accounts.models import Membership, User
from store.billing import ledger
from store.catalog.models import Listing, Version
from store.generation.models import Request
from store.jobs import files, finetunes
from store.moderation import decisions
from store.moderation.models import Submission
from store.notifications.models import Notification
from store.playground.models import Conversation
from store.ratings import rating
from store.ratings.models import Flag
from tests import making
from tests.moderation import acting

ROLES = ("visitor", "user", "member", "maintainer", "owner", "reviewer", "staff", "operator")
STATES = ("draft", "sealed", "released", "refused", "suspended")
LOGIN, ADMIN_LOGIN = "login", "admin login"
Outcome = int | str  # a status, or where somebody is sent to sign in
_WRITE = re.compile(r'(?:INSERT INTO|UPDATE|DELETE FROM) "(\w+)"')
BOOKKEEPING = frozenset({"django_session", "usersessions_usersession"})


def walk(patterns: Iterable[Any], prefix: str = "") -> Iterator[str]:
    """The name of every address with its namespaces; an address without a name by its route."""
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            yield from walk(pattern.url_patterns, prefix + (f"{pattern.namespace}:" if pattern.namespace else ""))
        elif isinstance(pattern, URLPattern):
            yield prefix + (pattern.name or str(pattern.pattern))


def every_address() -> set[str]:
    return set(walk(get_resolver().url_patterns))


@dataclass
class World:
    """One publisher with a GPT in each state, on a released base of somebody else."""

    versions: dict[str, Version] = field(default_factory=dict)
    submissions: dict[str, Submission] = field(default_factory=dict)
    people: dict[str, User] = field(default_factory=dict)
    clients: dict[str, Client] = field(default_factory=dict)
    things: dict[str, str] = field(default_factory=dict)  # public ids of what hangs on no state

    def listing(self, state: str) -> Listing:
        return self.versions[state].listing


def secret(state: str) -> str:
    """Stands in the texts and the instructions of the GPT in that state."""
    return f"unapproved-{state}-words"


def build_world() -> World:
    world = World()
    publisher = making.make_publisher(making.make_user("owner"), slug="lab")
    people = {
        "user": making.make_user("user"),
        "owner": making.owner_of(publisher),
        "maintainer": making.join(publisher, Membership.Role.MAINTAINER, "maintainer"),
        "member": making.join(publisher, Membership.Role.MEMBER, "member"),
        "reviewer": making.make_reviewer("reviewer"),
        "staff": making.make_user("staff", is_staff=True),
        "operator": making.make_user("operator", is_staff=True, is_superuser=True),
    }
    world.people = people
    base = making.make_base(making.make_publisher(slug="base-models"), slug="base")
    for state in STATES:
        _make_gpt(world, publisher, base, state)
    _make_things(world)
    world.clients["visitor"] = Client(raise_request_exception=False)
    for role, person in people.items():
        world.clients[role] = Client(raise_request_exception=False)
        world.clients[role].force_login(person, backend="django.contrib.auth.backends.ModelBackend")
    return world


def _make_gpt(world: World, publisher: Any, base: Version, state: str) -> None:
    texts = {"en": {"name": f"Gpt {state}", "summary": secret(state), "card": secret(state)}}
    listing = making.make_listing(publisher, slug=f"gpt-{state}", texts=texts)
    version = making.draft_prompt(base, listing, instructions=f"{secret(state)} instructions", starters=[secret(state)])
    reviewer = world.people["reviewer"]
    if state != "draft":
        submission = acting.pass_checks(acting.submit(version))
        world.submissions[state] = submission
        if state in ("released", "suspended"):
            decisions.approve(reviewer, submission)
        if state == "refused":
            decisions.reject(reviewer, submission, reason="No.")
        if state == "suspended":
            decisions.suspend(reviewer, submission.version, reason="It leaks.")
    world.versions[state] = Version.objects.select_related("listing__publisher").get(pk=version.pk)
    assert world.versions[state].state == state


def _make_things(world: World) -> None:
    """What belongs to one person: all of it to the role `user`, but the flag."""
    user, listing = world.people["user"], world.listing("released")
    notification = Notification.objects.create(user=user, kind=Notification.Kind.RATING_REPLY, key="access", params={"listing": "lab"})
    key, _secret = keys.create_key(user, name="access")
    receipt = ledger.grant(world.people["operator"], user, 1_000_000, cause="grant:access")
    asked = {"version": world.versions["released"], "user": user, "source": Request.Source.CHAT}
    request = Request.objects.create(**asked, state=Request.State.FINISHED, deadline_at=timezone.now())
    rated = rating.rate(user, listing, stars=4)
    flag = Flag.objects.create(rating=rated, user=world.people["staff"], reason=Flag.Reason.SPAM)
    conversation = Conversation.objects.create(version=world.versions["released"], user=user, title="Mine")
    question = conversation.messages.create(role="user", text="Hello")
    answer = conversation.messages.create(role="assistant", text="Hello.", request=request)
    world.things = {
        "request": request.public_id,
        "conversation": conversation.public_id,
        "question": question.public_id,
        "answer": answer.public_id,
        "rating": rated.public_id,
        "flag": flag.public_id,
        "notification": notification.public_id,
        "key": key.public_id,
        "receipt": receipt.public_id,
        "maintainer": world.people["maintainer"].public_id,
        **_make_finetune(world, world.versions["released"].weights()),
    }


def _make_finetune(world: World, base: Version) -> dict[str, str]:
    """A fine-tune of the publisher, waiting for its data to be checked."""
    owner, publisher = world.people["owner"], world.listing("released").publisher
    content = io.BytesIO(b'{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]}')
    file = files.save(owner, publisher, name="data.jsonl", stream=content, purpose="fine-tune")
    job = finetunes.start(owner, publisher, base=base, file=file, settings={})
    return {"job": job.public_id, "file": file.public_id, "base": base.public_id}


def ask(client: Client, method: str, path: str, body: Mapping[str, Any] | None = None) -> tuple[Outcome, str, list[str]]:
    """What came of it, what it said, and the tables it wrote to. Nothing of it lasts, not even a sign-out."""
    cookies = dict(client.cookies.items())
    reset_queries()  # the log of a connection is bounded
    with transaction.atomic():
        with CaptureQueriesContext(connection) as queries:
            response = client.get(path) if method == "GET" else client.post(path, body or {})
            said = b"" if response.streaming else response.content
        transaction.set_rollback(True)
    client.cookies.clear()
    client.cookies.update(cookies)
    written = [match[1] for query in queries if (match := _WRITE.match(query["sql"]))]
    return outcome(response), said.decode(errors="replace"), [table for table in written if table not in BOOKKEEPING]


def outcome(response: HttpResponse) -> Outcome:
    place = response.headers.get("Location", "")
    if response.status_code == 302 and "/admin/login/" in place:
        return ADMIN_LOGIN
    if response.status_code == 302 and "/account/login/" in place:
        return LOGIN
    return response.status_code


def differences(expected: Mapping[str, Outcome | frozenset[Outcome]], got: Mapping[str, Outcome]) -> dict[str, tuple[Any, Outcome]]:
    """Of each role that got something else: (expected, got)."""
    wrong = {}
    for role, found in got.items():
        wanted = expected[role]
        if found != wanted and not (isinstance(wanted, frozenset) and found in wanted):
            wrong[role] = (sorted(map(str, wanted)) if isinstance(wanted, frozenset) else wanted, found)
    return wrong
