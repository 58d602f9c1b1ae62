"""A small world with something in every state and somebody in every role, and what each gets when they ask for an address."""

from __future__ import annotations

import hashlib
import io
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.db import connection, transaction
from django.http import HttpResponse
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils import timezone

from inference import protocol
from store.accounts import invitations, keys
from store.accounts.models import Membership, Publisher, User
from store.accounts.publishers import create_publisher
from store.batches import preparing
from store.billing import access, ledger
from store.catalog import collections, following, transfers
from store.catalog.models import Listing, Version
from store.generation.models import Request
from store.jobs import dispatch, files, finetunes, folders, uploads
from store.jobs.models import Job
from store.moderation import decisions
from store.moderation.models import Submission
from store.notifications import preferences
from store.notifications.models import Notification, Topic
from store.pages import saved_searches
from store.pages.demo import finetune
from store.playground import sharing
from store.playground.models import Battle, Conversation, Embed
from store.ratings import rating
from store.ratings.models import Flag
from store.valkey import client as valkey
from tests import making
from tests.batches import answering as batches
from tests.moderation import acting

ROLES = ("visitor", "user", "member", "maintainer", "owner", "reviewer", "staff", "operator")
STATES = ("draft", "sealed", "released", "unlisted", "orphaned", "refused", "suspended")  # orphaned: released, its base suspended
LOGIN, ADMIN_LOGIN = "login", "admin login"
Outcome = int | str  # a status, or where somebody is sent to sign in
_WRITE = re.compile(r'(INSERT INTO|UPDATE|DELETE FROM) "(\w+)"')
_SAVEPOINT = re.compile(r'(ROLLBACK TO )?SAVEPOINT "?(\w+)"?')
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
    clients: dict[str, Client] = field(default_factory=dict)  # by role, and "nobody" who sends nothing along
    things: dict[str, str] = field(default_factory=dict)  # public ids of what hangs on no state
    secrets: dict[str, str] = field(default_factory=dict)  # API keys by role, and what is no key of anybody any more

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
    lost_base = making.make_base(base.listing.publisher, slug="lost-base")
    for state in STATES:
        _make_gpt(world, publisher, lost_base if state == "orphaned" else base, state)
    decisions.suspend(people["reviewer"], lost_base, reason="It leaks.")
    _make_things(world)
    _make_keys(world, publisher)
    key_alone = {"authorization": f"Bearer {world.secrets['owner']}"}  # opens no page: a visitor's pages are asked for with it
    world.clients["nobody"] = Client(raise_request_exception=False)
    world.clients["visitor"] = Client(raise_request_exception=False, headers=key_alone)
    for role, person in people.items():
        world.clients[role] = Client(raise_request_exception=False)
        world.clients[role].force_login(person, backend="django.contrib.auth.backends.ModelBackend")
    return world


def _make_gpt(world: World, publisher: Publisher, base: Version, state: str) -> None:
    texts = {"en": {"name": f"Gpt {state}", "summary": secret(state), "card": secret(state)}}
    listing = making.make_listing(publisher, slug=f"gpt-{state}", texts=texts)
    version = making.draft_prompt(base, listing, instructions=f"{secret(state)} instructions", starters=[secret(state)])
    reviewer = world.people["reviewer"]
    if state != "draft":
        submission = acting.pass_checks(acting.submit(version, visibility="unlisted" if state == "unlisted" else "public"))
        world.submissions[state] = submission
        if state in ("released", "unlisted", "orphaned", "suspended"):
            decisions.approve(reviewer, submission)
        if state == "refused":
            decisions.reject(reviewer, submission, reason="No.")
        if state == "suspended":
            decisions.suspend(reviewer, submission.version, reason="It leaks.")
    world.versions[state] = Version.objects.select_related("listing__publisher").get(pk=version.pk)
    assert world.versions[state].state == ("released" if state in ("unlisted", "orphaned") else state)


def _make_things(world: World) -> None:
    """What belongs to one person: all of it to the role `user`, but the flag."""
    user, listing = world.people["user"], world.listing("released")
    notification = Notification.objects.create(user=user, kind=Notification.Kind.RATING_REPLY, key="access", params={"listing": "lab"})
    key, _secret = keys.create_key(user, name="access")
    receipt = ledger.grant(world.people["operator"], user, 1_000_000, cause="grant:access")
    asked = {"version": world.versions["released"], "user": user, "source": Request.Source.CHAT}
    request = Request.objects.create(**asked, state=Request.State.FINISHED, completion_tokens=3, deadline_at=timezone.now())
    tried = Request.objects.create(**asked | {"source": Request.Source.TRY}, state=Request.State.FINISHED, deadline_at=timezone.now())
    rated = rating.rate(user, listing, stars=4)
    flag = Flag.objects.create(rating=rated, user=making.make_user(), reason=Flag.Reason.SPAM)
    making.confirm_address(user)
    invited = invitations.invite(world.people["owner"], listing.publisher, email=user.email, role="member")
    conversation = Conversation.objects.create(version=world.versions["released"], user=user, title="Mine")
    question = conversation.messages.create(role="user", text="Hello")
    answer = conversation.messages.create(role="assistant", text="Hello.", request=request)
    shared = sharing.share(conversation, user=user)
    world.things = {
        "request": request.public_id,
        "try": tried.public_id,
        "conversation": conversation.public_id,
        "shared conversation": shared.conversation.public_id,
        "share": shared.public_id,
        "battle": _make_battle(user, world.versions["released"]),
        "question": question.public_id,
        "answer": answer.public_id,
        "rating": rated.public_id,
        "flag": flag.public_id,
        "invitation": invited.public_id,
        "token of the invitation": invitations.token_of(invited),
        "notification": notification.public_id,
        "unsubscribe token": preferences.token(user, Topic.RATINGS),
        "key": key.public_id,
        "receipt": receipt.public_id,
        "embed": Embed.objects.create(listing=listing, is_on=True, origins=["https://example.org"]).public_id,
        "collection": _make_collection(user, listing),
        "follow": following.follow_publisher(user, world.versions["released"].weights().listing.publisher).public_id,
        **_make_access(user),
        "transfer": _make_transfer(world),
        "saved search": saved_searches.save(user, "q=poem").public_id,
        "upload": uploads.begin(user, None, name="requests.jsonl", purpose="batch", length_bytes=9).public_id,
        "maintainer": world.people["maintainer"].public_id,
        **_make_batches(user, world.versions["released"]),
        **_make_finetune(world, world.versions["released"].weights()),
    }


def _make_access(user: User) -> dict[str, str]:
    """A month of a GPT of a publisher that nobody here belongs to."""
    asks = {"input_price_micro": 1, "output_price_micro": 1, "monthly_price_micro": 1, "monthly_tokens": 100_000}
    sold, bought = (making.make_base(slug=f"{name}-by-the-month", **asks).listing for name in ("sold", "bought"))
    return {"sold listing": sold.public_id, "access": access.buy(user, bought, price_micro=1, tokens=100_000).public_id}


def _make_battle(user: User, version: Version) -> str:
    """Of two whole answers, which waits for its vote."""
    ended = {"user": user, "source": Request.Source.ARENA, "state": "finished", "completion_tokens": 1, "deadline_at": timezone.now()}
    two = {"a": version, "b": version.weights()}
    fields = {f"version_{side}": one for side, one in two.items()}
    asked = {f"request_{side}": Request.objects.create(version=one, **ended) for side, one in two.items()}
    return Battle.objects.create(user=user, text="Hello", **fields, **asked).public_id


def _make_transfer(world: World) -> str:
    """Of a GPT of a publisher elsewhere, to the publisher lab."""
    theirs = making.make_listing(making.make_publisher(making.make_user(), slug="elsewhere"), slug="given")
    making.confirm_address(world.people["owner"])
    return transfers.offer(making.owner_of(theirs.publisher), theirs, to="lab").public_id


def _make_collection(user: User, listing: Listing) -> str:
    made = collections.create(user, name="For letters")
    collections.put(user, made.public_id, listing)
    return made.public_id


def _make_batches(user: User, version: Version) -> dict[str, str]:
    """One that is done, one line of whose file was wrong, and one that is under way."""
    name = version.listing.full_name
    done = batches.start(user, [batches.line_of("a", name), b"wrong"], name="done.jsonl")
    preparing.prepare(done.public_id)
    done = batches.answer_all(done)
    assert done.output_file is not None
    return {
        "batch": done.public_id,
        "batch under way": batches.begun(user, version).public_id,
        "file of requests": done.input_file,
        "file of answers": done.output_file.public_id,
    }


def _make_keys(world: World, publisher: Publisher) -> None:
    """One for each role; and one of the owner that is revoked, one of a maintainer who was shut out, and one that nobody has."""
    for role, person in world.people.items():
        world.secrets[role] = keys.create_key(person, name="access")[1]
    key, world.secrets["revoked"] = keys.create_key(world.people["owner"], name="lost")
    keys.revoke_key(world.people["owner"], key)
    shut_out = making.join(publisher, Membership.Role.MAINTAINER, "shut-out")
    world.secrets["shut out"] = keys.create_key(shut_out, name="access")[1]
    User.objects.filter(pk=shut_out.pk).update(is_active=False)
    world.secrets["made up"] = world.secrets["owner"][:-1] + ("a" if world.secrets["owner"][-1] != "a" else "b")


def _make_finetune(world: World, base: Version) -> dict[str, str]:
    """Fine-tunes of the publisher, one in each state that something can be done to; `job` waits for its data to be checked."""
    owner, publisher = world.people["owner"], world.listing("released").publisher
    content = io.BytesIO(b'{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]}')
    file = files.save(owner, publisher, name="data.jsonl", stream=content, purpose="fine-tune")
    jobs = {}
    for state in ("waiting", "queued", "paused", "cancelled", "succeeded"):
        jobs[state] = finetunes.start(owner, publisher, base=base, file=file, settings={})
        Job.objects.filter(pk=jobs[state].pk).update(state=state)
    Job.objects.filter(pk=jobs["succeeded"].pk).update(result={"manifest": making.make_artifact().digest})
    named = {f"{state} job": job.public_id for state, job in jobs.items()}
    named |= _make_folders(world, base)
    return {"job": jobs["waiting"].public_id, "file": file.public_id, "base": base.public_id, **named}


def _make_folders(world: World, base: Version) -> dict[str, str]:
    """Files for a version, whole and not checked yet, and a folder of which a version can be made."""
    owner, listing = world.people["owner"], world.listing("released")
    folder, checked = (folders.begin(owner, listing, kind="adapter", base=base) for _ in range(2))
    for name in folders.NEEDED["adapter"]:
        content = io.BytesIO(name.encode())
        folder.files.add(file := files.save(owner, listing.publisher, name=name, stream=content, purpose="model"))
    result = {"manifest": making.make_artifact().digest, "facts": {}}
    checked.job = Job.objects.create(kind=Job.Kind.IMPORT, state=Job.State.SUCCEEDED, publisher=listing.publisher, result=result)
    checked.save()
    return {"folder": folder.public_id, "checked folder": checked.public_id, "file of a folder": file.public_id}


def make_open_job() -> Job:
    """One that the demo starts on the data in the source code, of a publisher that nobody here belongs to."""
    publisher = create_publisher(making.make_user(), slug="the-demo", name="The demo", is_demo=True)
    data = {"file": hashlib.sha256(finetune.DATA.read_bytes()).hexdigest(), "settings": finetunes.checked_settings(finetune.recipe())}
    return dispatch.create(Job.Kind.FINETUNE, params=data, publisher=publisher, user=making.owner_of(publisher))


def ask(
    client: Client,
    method: str,
    path: str,
    body: Mapping[str, Any] | None = None,
    *,
    given: Callable[[], None] = lambda: None,
    **headers: str,
) -> tuple[Outcome, str, list[str]]:
    """What came of it, what it said, and the tables it wrote to. Nothing of it lasts, not even a sign-out."""
    cookies = dict(client.cookies.items())
    _open_for_business()
    written = Written()
    with transaction.atomic():
        given()
        with connection.execute_wrapper(written):
            response = client.get(path, headers=headers) if method == "GET" else client.post(path, body or {}, headers=headers)
            said = b"" if response.streaming else response.content
        transaction.set_rollback(True)
    client.cookies.clear()
    client.cookies.update(cookies)
    return outcome(response), said.decode(errors="replace"), written.tables()


class Written:
    """The tables in which rows were changed, and not changed back by the end of a savepoint."""

    def __init__(self) -> None:
        self._changes: list[str] = []
        self._begun: dict[str, int] = {}  # savepoint: how many changes there were

    def __call__(self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
        result = execute(sql, params, many, context)
        if (savepoint := _SAVEPOINT.match(sql)) and savepoint[1]:
            del self._changes[self._begun[savepoint[2]] :]
        elif savepoint:
            self._begun[savepoint[2]] = len(self._changes)
        elif (write := _WRITE.match(sql)) and (write[1] == "INSERT INTO" or context["cursor"].rowcount):
            self._changes.append(write[2])
        return result

    def tables(self) -> list[str]:
        return [table for table in self._changes if table not in BOOKKEEPING]


def _open_for_business() -> None:
    """Workers live, and nobody's limits are used up."""
    valkey().flushdb()
    for workers in (protocol.GENERATION_WORKERS, protocol.JOB_WORKERS):
        valkey().zadd(workers, {"worker-1": time.time()})


def outcome(response: HttpResponse) -> Outcome:
    place = response.headers.get("Location", "")
    if response.status_code == 302 and "/admin/login/" in place:
        return ADMIN_LOGIN
    if response.status_code == 302 and "/account/login/" in place:
        return LOGIN
    return response.status_code


def differences(expected: Mapping[str, Outcome], got: Mapping[str, Outcome]) -> dict[str, tuple[Outcome, Outcome]]:
    """Of each role that got something else: (expected, got)."""
    return {role: (expected[role], found) for role, found in got.items() if found != expected[role]}
