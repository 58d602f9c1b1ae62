"""Who gets what: every address × every role × every state of a GPT. An address that is not in the table fails the test.

A page is asked for with GET, an act with POST and everything it needs, so that each status is the one that is right there.
An act that is done leaves a trace, one that is refused none. Whatever the status, nobody without the right ever reads a word
of a GPT that was not approved, or of instructions at all. Visitors send an owner's API key along: it opens no page.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone

from store.billing import ledger
from store.jobs import pretraining
from store.jobs.finetunes import CHOICES, SETTINGS
from store.moderation.models import Submission
from store.notifications.models import Notification
from store.playground import embeds
from store.playground.models import Embed
from tests import access
from tests.access import ADMIN_LOGIN, LOGIN, ROLES, STATES, Outcome, World

Row = Mapping[str, Outcome]
Rows = Mapping[str, Row]  # by state; in a state that is left out nothing is asked
INSIDERS = frozenset({"member", "maintainer", "owner", "reviewer", "operator"})
APPROVED_ONCE = ("released", "unlisted", "orphaned", "suspended")  # and so shown by their publisher, in some state
RELEASED = ("released", "unlisted", "orphaned")
SUBMITTED = tuple(state for state in STATES if state != "draft")
APIS = ("api:", "openai:", "v1_batches:")


def row(default: Outcome, **special: Outcome) -> Row:
    return {role: special.get(role, default) for role in ROLES}


def always(one: Row, *states: str) -> Rows:
    return dict.fromkeys(states or STATES, one)


def editors(done: int, **special: Outcome) -> Row:
    """For owners and maintainers of the publisher."""
    return row(404, visitor=LOGIN, member=403, maintainer=done, owner=done, **special)


def reviewers(done: int) -> Row:
    return row(404, visitor=LOGIN, reviewer=done, operator=done)


PUBLIC = always(row(200))
GONE = always(row(404))
SIGNED_IN = always(row(200, visitor=LOGIN))
ACT_SIGNED_IN = always(row(302, visitor=LOGIN))
REVIEWERS = always(reviewers(200))
REVIEWED = always(reviewers(200), *SUBMITTED)
ACT_REVIEWERS = always(reviewers(302))
IN_REVIEW = always(reviewers(409), *SUBMITTED) | {"sealed": reviewers(302)}
OPERATORS = always(row(404, visitor=LOGIN, operator=200))
ACT_OPERATORS = always(row(404, visitor=LOGIN, operator=302))
MEMBERS = always(row(404, visitor=LOGIN, member=200, maintainer=200, owner=200))
EDITORS = always(editors(200))
ACT_EDITORS = always(editors(302))
ACT_EDITORS_OR_OPERATOR = always(editors(302, operator=302))
ON_A_DRAFT = always(editors(409)) | {"draft": editors(302)}
ACT_OWNERS = always(row(404, visitor=LOGIN, member=403, maintainer=403, owner=302))
MINE = always(row(404, visitor=LOGIN, user=200))  # something that belongs to the role "user"
ACT_MINE = always(row(404, visitor=LOGIN, user=302))
TO_MEASURE = always(editors(422)) | dict.fromkeys(("draft", "sealed", "released", "unlisted"), editors(302))
ONLY_MINE = always(row(404, user=200))  # the same, where a visitor has things too
APPROVED = always({role: 200 if role in INSIDERS else 404 for role in ROLES}) | {"released": row(200), "unlisted": row(200)}
FOLLOWABLE = always(row(404, visitor=LOGIN, **dict.fromkeys(INSIDERS, 302))) | always(row(302, visitor=LOGIN), "released", "unlisted")
# The unpinned name means what was approved; what was suspended itself answers reviewers, and nothing answers on a suspended base.
BY_NAME = always(row(404)) | {"released": row(200), "unlisted": row(200), "suspended": row(404, reviewer=200, operator=200)}
TRIED = BY_NAME | dict.fromkeys(("draft", "sealed", "refused"), row(404, **dict.fromkeys(INSIDERS, 200)))
NOT_USED = dict.fromkeys(INSIDERS, 403)
RATING = always(row(404, visitor=LOGIN, **NOT_USED)) | {
    "released": row(403, visitor=LOGIN, user=200),  # only "user" has used it
    "unlisted": row(403, visitor=LOGIN),
}
ACT_RATING = RATING | {"released": row(403, visitor=LOGIN, user=302)}
NO_KEY = always(row(401))  # a session is no key
SENT_ON = always(row(302, visitor=LOGIN))  # to say the password again, or because there is nothing to do
NOT_SET_UP = always(row(404, visitor=LOGIN))  # nobody here has a second factor
NEW_HERE = always(row(302, visitor=200))  # for who has not signed in yet


def _no_arguments(world: World, state: str) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Entry:
    page: Rows | None = None  # what GET answers; None: it is not asked
    act: Rows | None = None  # what POST answers; None: it is not asked
    path: Callable[[World, str], dict[str, Any]] = _no_arguments
    body: Callable[[World, str], dict[str, Any]] = _no_arguments  # of the POST: all that the act needs
    given: Callable[[World, str, str], None] = lambda world, state, role: None  # what is so when that role posts
    accept: str = "*/*"
    headers: Mapping[str, str] = field(default_factory=dict)  # that the act needs besides
    writes: bool = True  # whether the act leaves a trace in the database

    @property
    def states(self) -> tuple[str, ...]:
        """The states that make a difference to what is asked."""
        return STATES if self.path in BY_STATE or self.body in BY_STATE else ("released",)


def of_listing(world: World, state: str) -> dict[str, Any]:
    return {"publisher": "lab", "slug": f"gpt-{state}"}


def of_version(world: World, state: str) -> dict[str, Any]:
    return {"publisher": "lab", "slug": f"gpt-{state}", "number": "1.0.0"}


def listing_id(world: World, state: str) -> dict[str, Any]:
    return {"public_id": world.listing(state).public_id}


def version_id(world: World, state: str) -> dict[str, Any]:
    return {"public_id": world.versions[state].public_id}


def evaluation_of(world: World, state: str) -> dict[str, Any]:
    return {"slug": "lab", "version": world.versions[state].public_id}


def submission_id(world: World, state: str) -> dict[str, Any]:
    return {"public_id": world.submissions[state].public_id}


def check_of(world: World, state: str) -> dict[str, Any]:
    return {**submission_id(world, state), "name": "generates"}


def publisher(world: World, state: str) -> dict[str, Any]:
    return {"slug": "lab"}


def thing(name: str, key: str = "public_id") -> Callable[[World, str], dict[str, Any]]:
    return lambda world, state: {key: world.things[name]}


def fixed(**arguments: Any) -> Callable[[World, str], dict[str, Any]]:
    return lambda world, state: arguments


def question_by_name(world: World, state: str) -> dict[str, Any]:
    return {"model": f"lab/gpt-{state}", "text": "Hello"}


def question_to_version(world: World, state: str) -> dict[str, Any]:
    return {"model": world.versions[state].public_id, "text": "Hello"}


def question_in_a_frame(world: World, state: str) -> dict[str, Any]:
    token = embeds.begin(Embed.objects.get(public_id=world.things["embed"]))
    return {"token": token, "messages": '[{"role": "user", "content": "Hello"}]'}


TEXTS = {"name_en": "Plain", "summary_en": "Plain answers."}
PROMPT = {"instructions": "Answer.", "number": "2.0.0"}


def new_gpt(world: World, state: str) -> dict[str, Any]:
    claims = {"use_cases": ["chat"], "languages": ["en"], "licence": "MIT", "input_price": 0, "output_price": 0}
    return {**TEXTS, **PROMPT, **claims, "slug": "new", "base": world.things["base"]}


def draft_to_try(world: World, state: str) -> dict[str, Any]:
    return {"base": world.things["base"], "instructions": "Answer.", "conversation": '[{"role": "user", "content": "Hi"}]'}


def new_gpt_from_files(world: World, state: str) -> dict[str, Any]:
    return new_gpt(world, state) | {"kind": "adapter"}


def of_folder(name: str, **also: str) -> Callable[[World, str], dict[str, Any]]:
    return lambda world, state: {
        **of_listing(world, "released"),
        "public_id": world.things[name],
        **{key: world.things[thing] for key, thing in also.items()},
    }


def new_version(world: World, state: str) -> dict[str, Any]:
    return {**PROMPT, "base": world.things["base"]}


def data_from_before(world: World, state: str) -> dict[str, Any]:
    return {"base": world.things["base"], "scope": "adapter", "earlier": world.things["file"]}


class Reopened(io.BytesIO):
    """A file that is there anew for each who sends it."""

    name = "requests.jsonl"

    def read(self, size: int | None = -1) -> bytes:
        self.seek(0)
        return super().read(size)


def file_of_requests(world: World, state: str) -> dict[str, Any]:
    return {"file": Reopened(b"{}")}


def readme(world: World, state: str) -> dict[str, Any]:
    file = Reopened(b"# About")
    file.name = "README.md"
    return {"file": file}


def results_of_batch(world: World, state: str) -> dict[str, Any]:
    return {"public_id": world.things["batch"], "which": "results"}


def usual_settings(world: World, state: str) -> dict[str, Any]:
    numbers = {name: default for name, (_kind, _low, _high, default) in SETTINGS.items()}
    return numbers | {name: values[0] for name, values in CHOICES.items() if values[0] is not False}


def claimed(world: World, state: str, role: str) -> None:
    """By whoever asks, where there is something to claim."""
    if role in world.people and world.submissions[state].is_open:
        Submission.objects.filter(pk=world.submissions[state].pk).update(claimed_by=world.people[role], claimed_at=timezone.now())


def rich(world: World, state: str, role: str) -> None:
    """Who asks has credit."""
    if role in world.people:
        ledger.grant(None, world.people[role], 10, cause=f"grant:{role}")


def check_broken(world: World, state: str, role: str) -> None:
    """It could not be run."""
    world.submissions[state].checks.update(state="error")


def unread_message(world: World, state: str, role: str) -> None:
    if role in world.people:
        Notification.objects.create(user=world.people[role], kind=Notification.Kind.RATING_REPLY, key="unread", params={"listing": "lab"})


BY_STATE = frozenset(
    {question_by_name, question_to_version, of_listing, of_version, listing_id, version_id, submission_id, check_of, evaluation_of}
)
SCRIPT = "application/json"  # what the scripts of the pages accept
TUS = {"tus-resumable": "1.0.0"}
DATA = "filename YS5qc29ubA==,purpose ZmluZS10dW5l,publisher bGFi"  # a.jsonl for fine-tuning, of the publisher lab

TABLE: dict[str, Entry] = {
    # the shop
    "pages:home": Entry(PUBLIC),
    "pages:explore": Entry(PUBLIC),
    "pages:suggest": Entry(PUBLIC),
    "pages:leaderboards": Entry(PUBLIC),
    "pages:compare": Entry(PUBLIC),
    "pages:save_search": Entry(act=ACT_SIGNED_IN, body=fixed(address="q=letter")),
    "pages:forget_search": Entry(act=ACT_MINE, path=thing("saved search")),
    "pages:listing": Entry(APPROVED, path=of_listing),
    "pages:collections": Entry(SIGNED_IN, ACT_SIGNED_IN, body=fixed(name="Mine")),
    "pages:collection": Entry(ONLY_MINE, ACT_MINE, path=thing("collection"), body=fixed(name="Renamed")),
    "pages:delete_collection": Entry(act=ACT_MINE, path=thing("collection")),
    "pages:take_out": Entry(
        act=ACT_MINE, path=lambda w, state: {**thing("collection")(w, state), "listing": w.listing("released").public_id}
    ),
    "pages:arrange": Entry(
        act=ACT_MINE,
        path=lambda w, state: {**thing("collection")(w, state), "listing": w.listing("released").public_id},
        body=fixed(note="Why"),
    ),
    "pages:collect": Entry(act=FOLLOWABLE, path=of_listing, body=fixed(name="New")),
    "pages:following": Entry(SIGNED_IN),
    "pages:stop_following": Entry(act=ACT_MINE, path=thing("follow")),
    "pages:follow_listing": Entry(act=FOLLOWABLE, path=of_listing),
    "pages:follow_publisher": Entry(act=ACT_SIGNED_IN, path=publisher),
    "pages:versions": Entry(APPROVED, path=of_listing),
    "pages:measured": Entry(APPROVED, path=of_version),
    "pages:file": Entry(GONE, path=lambda w, state: {**of_version(w, state), "path": "config.json"}),  # a prompt GPT has no files
    "pages:publisher": Entry(PUBLIC, path=publisher),
    "pages:developers": Entry(PUBLIC),
    "pages:about": Entry(PUBLIC),
    "pages:learn_gpt": Entry(PUBLIC),
    "pages:learn_choosing": Entry(PUBLIC),
    "pages:learn_quality": Entry(PUBLIC),
    "pages:learn_risks": Entry(PUBLIC),
    "pages:learn_publishing": Entry(PUBLIC),
    "pages:policy": Entry(PUBLIC),
    "pages:operations": Entry(OPERATORS),
    "pages:operations_cancel": Entry(act=ACT_OPERATORS, path=thing("waiting job")),
    "pages:operations_retry": Entry(act=ACT_OPERATORS, path=thing("cancelled job")),
    "set_language": Entry(act=always(row(302)), body=fixed(language="zh-hans"), writes=False),
    # the studio
    "pages:studio": Entry(always(row(200, visitor=LOGIN, member=302, maintainer=302, owner=302))),  # on to their only publisher
    "pages:studio_new_publisher": Entry(SIGNED_IN, ACT_SIGNED_IN, body=fixed(name="New", slug="new-house", kind="person")),
    "pages:studio_preview": Entry(act=always(row(200, visitor=LOGIN)), body=fixed(card="# Card"), writes=False),
    "pages:studio_try": Entry(act=always(row(403, visitor=LOGIN, maintainer=200, owner=200)), body=draft_to_try),
    "pages:studio_publisher": Entry(MEMBERS, path=publisher),
    "pages:studio_new_gpt": Entry(EDITORS, ACT_EDITORS, path=publisher, body=new_gpt),
    "pages:studio_listing": Entry(MEMBERS, path=of_listing),
    "pages:studio_icon": Entry(act=ACT_EDITORS, path=of_listing, body=fixed(remove="1")),
    "pages:studio_texts": Entry(EDITORS, ACT_EDITORS, path=of_listing, body=fixed(**TEXTS)),
    "pages:studio_analytics": Entry(MEMBERS, path=of_listing),
    "pages:studio_feedback": Entry(MEMBERS, path=of_listing),
    "pages:studio_make_set": Entry(act=ACT_EDITORS, path=of_listing, writes=False),  # of nobody's feedback
    "pages:studio_analytics_csv": Entry(MEMBERS, path=of_listing),
    "pages:studio_prices": Entry(act=ACT_EDITORS, path=of_listing, body=fixed(input_price=1, output_price=2)),
    "pages:studio_permissions": Entry(act=ACT_EDITORS, path=of_listing),
    "pages:studio_visibility": Entry(
        act=always(editors(409)) | always(editors(302), *APPROVED_ONCE), path=of_listing, body=fixed(visibility="public")
    ),
    "pages:studio_submit": Entry(
        act=always(editors(422)) | {"draft": editors(302)}, path=of_listing, body=fixed(version="1.0.0", texts="on", visibility="public")
    ),
    "pages:studio_withdraw": Entry(act=always(editors(404)) | {"sealed": editors(302)}, path=of_listing),  # nothing else is in review
    "pages:studio_transfer": Entry(
        always(row(404, visitor=LOGIN, member=403, maintainer=403, owner=200)),
        always(row(404, visitor=LOGIN, member=403, maintainer=403, owner=302))
        | {"sealed": row(404, visitor=LOGIN, member=403, maintainer=403, owner=422)},
        path=of_listing,
        body=fixed(to="base-models"),
    ),
    "pages:studio_transfer_answer": Entry(
        always(row(404, visitor=LOGIN, owner=200)),
        always(row(404, visitor=LOGIN, owner=302)),
        path=thing("transfer"),
        body=fixed(answer="accept"),
    ),
    "pages:studio_new_from_files": Entry(EDITORS, ACT_EDITORS, path=publisher, body=new_gpt_from_files),
    "pages:studio_bring": Entry(EDITORS, ACT_EDITORS, path=of_listing, body=fixed(kind="weights")),
    "pages:studio_folder": Entry(EDITORS, ACT_EDITORS, path=of_folder("checked folder"), body=fixed(number="2.0.0")),
    "pages:studio_folder_add": Entry(act=ACT_EDITORS, path=of_folder("folder"), body=readme),
    "pages:studio_folder_take_out": Entry(act=ACT_EDITORS, path=of_folder("folder", file="file of a folder")),
    "pages:studio_folder_check": Entry(act=ACT_EDITORS, path=of_folder("folder")),
    "pages:studio_folder_discard": Entry(act=ACT_EDITORS, path=of_folder("folder")),
    "pages:studio_new_version": Entry(EDITORS, ACT_EDITORS, path=of_listing, body=new_version),
    "pages:studio_version": Entry(
        EDITORS, always(editors(422)) | {"draft": editors(302)}, path=of_version, body=fixed(instructions="Answer.")
    ),
    "pages:studio_make_current": Entry(act=always(editors(409)) | always(editors(302), "released", "unlisted"), path=of_version),
    "pages:studio_retire": Entry(
        always(editors(404)) | always(editors(200), *RELEASED),
        always(editors(404)) | always(editors(302), *RELEASED),
        path=of_version,
        body=fixed(act="deprecate", notice="Use 2.0.0."),
    ),
    "pages:studio_delete_draft": Entry(act=ON_A_DRAFT, path=of_version),
    # fine-tunes
    "jobs:finetunes": Entry(MEMBERS, path=publisher),
    "jobs:evaluations": Entry(MEMBERS, path=publisher),
    "jobs:evaluate": Entry(EDITORS, TO_MEASURE, path=evaluation_of, body=fixed(suites="answer")),
    "jobs:files": Entry(MEMBERS, path=publisher),
    "jobs:uploads": Entry(  # scripts ask it, and are not sent on to sign in
        always(row(405, visitor=401)),
        always(editors(201) | {"visitor": 401}),
        headers=TUS | {"upload-length": "9", "upload-metadata": DATA},
    ),
    "jobs:upload": Entry(
        always(row(405, visitor=401)),
        always(row(404, visitor=401, user=204)),
        path=thing("upload"),
        headers=TUS | {"x-http-method-override": "DELETE"},
    ),
    "jobs:remove_upload": Entry(act=ACT_MINE, path=thing("upload")),
    "jobs:new": Entry(EDITORS, ACT_EDITORS, path=publisher, body=data_from_before, writes=False),
    "jobs:settings": Entry(
        EDITORS,
        ACT_EDITORS,
        path=lambda w, _: {"slug": "lab", "base": w.things["base"], "file": w.things["file"]},
        body=usual_settings,
    ),
    "jobs:pretraining": Entry(
        EDITORS, ACT_EDITORS, path=lambda w, _: {"slug": "lab", "file": w.things["file"]}, body=fixed(**pretraining.SUITED)
    ),
    "jobs:job": Entry(always({**MEMBERS["released"], "operator": 200}), path=thing("job")),
    "jobs:events": Entry(always(row(404, member=200, maintainer=200, owner=200, operator=200)), path=thing("job")),
    "jobs:pause": Entry(act=ACT_EDITORS_OR_OPERATOR, path=thing("queued job")),
    "jobs:resume": Entry(act=ACT_EDITORS_OR_OPERATOR, path=thing("paused job")),
    "jobs:cancel": Entry(act=ACT_EDITORS_OR_OPERATOR, path=thing("waiting job")),
    "jobs:retry": Entry(act=ACT_EDITORS_OR_OPERATOR, path=thing("cancelled job")),
    "jobs:make_version": Entry(
        act=ACT_EDITORS, path=thing("succeeded job"), body=fixed(slug="tuned", name="Tuned", summary="Tuned answers.", number="1.0.0")
    ),
    # reviews
    "moderation:queue": Entry(REVIEWERS),
    "moderation:submission": Entry(REVIEWED, path=submission_id),
    "moderation:claim": Entry(act=IN_REVIEW, path=submission_id),
    "moderation:release": Entry(act=IN_REVIEW, path=submission_id, given=claimed),
    "moderation:decide": Entry(act=IN_REVIEW, path=submission_id, body=fixed(action="approve")),
    "moderation:withdraw": Entry(act=always(editors(409), *SUBMITTED) | {"sealed": editors(302)}, path=submission_id),
    "moderation:run_check_again": Entry(act=IN_REVIEW, path=check_of, given=check_broken),
    "moderation:listing": Entry(always(row(404, visitor=LOGIN, **dict.fromkeys(INSIDERS, 200))), path=listing_id),
    "moderation:suspend": Entry(
        act=always(reviewers(409)) | always(reviewers(302), "released", "unlisted", "orphaned"),
        path=version_id,
        body=fixed(reason="Because."),
    ),
    "moderation:restore": Entry(act=always(reviewers(409)) | {"suspended": reviewers(302)}, path=version_id, body=fixed(reason="Because.")),
    # ratings
    "ratings:all": Entry(APPROVED, path=listing_id),
    "ratings:flags": Entry(REVIEWERS),
    "ratings:settle_flag": Entry(act=ACT_REVIEWERS, path=thing("flag"), body=fixed(decision="uphold")),
    "ratings:withdraw": Entry(act=ACT_MINE, path=thing("rating")),
    "ratings:reply": Entry(EDITORS, ACT_EDITORS, path=thing("rating"), body=fixed(text="Thank you.")),
    "ratings:flag": Entry(SIGNED_IN, always(row(302, visitor=LOGIN, user=403)), path=thing("rating"), body=fixed(reason="spam")),
    "ratings:helpful": Entry(
        act=always(row(302, visitor=LOGIN, user=403, member=403, maintainer=403, owner=403)), path=thing("rating"), body=fixed(vote="yes")
    ),
    "ratings:rate": Entry(RATING, ACT_RATING, path=listing_id, body=fixed(stars=5)),
    # the chat
    "playground:chat": Entry(PUBLIC),
    "playground:compare": Entry(always(row(301))),  # where it was
    "playground:consent": Entry(SIGNED_IN, ACT_SIGNED_IN, body=fixed(agree="yes")),
    "playground:judge": Entry(act=ONLY_MINE, path=thing("answer"), body=fixed(liked="yes"), accept=SCRIPT),
    "playground:arena": Entry(PUBLIC),
    "playground:arena_board": Entry(PUBLIC),
    "playground:start_battle": Entry(  # the GPT that is listed meets its base; members may not vote on it, and nothing else is left
        act=always(row(200, visitor=401, member=409, maintainer=409, owner=409)), body=fixed(text="Hello"), accept=SCRIPT
    ),
    "playground:battle": Entry(MINE, path=thing("battle")),
    "playground:vote": Entry(act=always(row(404, user=302)), path=thing("battle"), body=fixed(vote="tie")),
    "playground:new": Entry(always(row(302))),  # nothing named to talk to
    "playground:csrf": Entry(PUBLIC),
    "playground:confirm": Entry(act=TRIED, body=question_to_version, writes=False),
    "playground:start": Entry(act=BY_NAME, body=question_by_name, accept=SCRIPT),
    "playground:try": Entry(act=TRIED, path=of_listing, body=question_to_version, accept=SCRIPT),
    "playground:events": Entry(ONLY_MINE, path=thing("request")),
    "playground:stop": Entry(act=always(row(404, user=202)), path=thing("request"), accept=SCRIPT, writes=False),
    "playground:keep": Entry(act=ONLY_MINE, path=thing("try"), body=fixed(text="Hello"), accept=SCRIPT),
    "playground:regenerate": Entry(act=ONLY_MINE, path=thing("answer"), accept=SCRIPT),
    "playground:edit": Entry(act=ONLY_MINE, path=thing("question"), body=fixed(text="Hello"), accept=SCRIPT),
    "playground:conversation": Entry(ONLY_MINE, path=thing("conversation")),
    "playground:share": Entry(act=always(row(404, user=302)), path=thing("conversation"), body=fixed(name="Me")),
    "playground:unshare": Entry(act=always(row(404, user=302)), path=thing("shared conversation")),
    "playground:shared": Entry(PUBLIC, path=thing("share")),
    "playground:ask": Entry(act=ONLY_MINE, path=thing("conversation"), body=fixed(text="Hello"), accept=SCRIPT),
    "playground:rename": Entry(act=always(row(404, user=302)), path=thing("conversation"), body=fixed(title="Hello")),
    "playground:delete": Entry(act=always(row(404, user=302)), path=thing("conversation")),
    "playground:export": Entry(ONLY_MINE, path=lambda w, _: {"public_id": w.things["conversation"], "form": "json"}),
    # people
    "accounts:settings": Entry(SIGNED_IN, ACT_SIGNED_IN, body=fixed(name="New", language="en")),
    "accounts:security": Entry(SIGNED_IN),
    "accounts:keys": Entry(SIGNED_IN, always(row(201, visitor=LOGIN)), body=fixed(name="laptop")),
    "accounts:revoke_key": Entry(act=ACT_MINE, path=thing("key", "key")),
    "accounts:publishers": Entry(SIGNED_IN),
    "accounts:members": Entry(MEMBERS, ACT_OWNERS, path=publisher, body=fixed(username="user", role="member")),
    "accounts:remove_member": Entry(  # anybody may leave
        act=ACT_EDITORS, path=lambda w, _: {"slug": "lab", "member": w.things["maintainer"]}
    ),
    "accounts:domain": Entry(
        always(row(404, visitor=LOGIN, member=403, maintainer=403, owner=200)),
        always(row(404, visitor=LOGIN, member=403, maintainer=403, owner=422)),  # nothing is known of it
        path=publisher,
        body=fixed(domain="no-such.invalid"),
    ),
    "accounts:invite": Entry(act=ACT_OWNERS, path=publisher, body=fixed(email="new@example.org", role="member")),
    "accounts:revoke_invitation": Entry(act=ACT_OWNERS, path=lambda w, _: {"slug": "lab", "invitation": w.things["invitation"]}),
    "accounts:invitation": Entry(  # the address is the secret of the letter; only whose it is may answer it
        SIGNED_IN,
        always(row(403, visitor=LOGIN, user=302)),
        path=thing("token of the invitation", "token"),
        body=fixed(answer="accept"),
    ),
    "notifications:inbox": Entry(SIGNED_IN),
    "notifications:preferences": Entry(SIGNED_IN, ACT_SIGNED_IN),
    "notifications:unsubscribe": Entry(PUBLIC, PUBLIC, path=thing("unsubscribe token", "token")),
    "notifications:mark_all_read": Entry(act=ACT_SIGNED_IN, given=unread_message),
    "notifications:mark_read": Entry(act=ACT_MINE, path=thing("notification")),
    "notifications:open": Entry(act=ACT_MINE, path=thing("notification")),
    "batches:list": Entry(SIGNED_IN),
    "batches:new": Entry(SIGNED_IN, ACT_SIGNED_IN, body=file_of_requests),
    "batches:batch": Entry(MINE, path=thing("batch")),
    "batches:cancel": Entry(act=ACT_MINE, path=thing("batch under way")),
    "batches:download": Entry(MINE, path=results_of_batch),
    "billing:wallet": Entry(SIGNED_IN),
    "billing:receipt": Entry(MINE, path=thing("receipt")),
    "billing:access": Entry(
        SIGNED_IN, always(row(302, visitor=LOGIN)), path=thing("sold listing"), body=fixed(price_micro=1, tokens=100_000), given=rich
    ),
    "billing:renewal": Entry(act=ACT_MINE, path=thing("access")),
    "billing:refund": Entry(act=ACT_MINE, path=thing("access")),
    "billing:earnings": Entry(EDITORS, path=publisher),
    # signing in, as allauth does it
    "account_login": Entry(NEW_HERE),
    "account_signup": Entry(NEW_HERE),
    "account_logout": Entry(always(row(200, visitor=302))),
    "account_inactive": Entry(PUBLIC),
    "account_email_verification_sent": Entry(PUBLIC),
    "account_confirm_email": Entry(PUBLIC, path=fixed(key="x")),
    "account_reset_password": Entry(PUBLIC),
    "account_reset_password_done": Entry(PUBLIC),
    "account_reset_password_from_key": Entry(PUBLIC, path=fixed(uidb36="1", key="x")),
    "account_reset_password_from_key_done": Entry(PUBLIC),
    "account_confirm_login_code": Entry(SENT_ON),
    "account_email": Entry(SIGNED_IN),
    "account_change_password": Entry(SIGNED_IN),
    "account_set_password": Entry(SENT_ON),
    "account_reauthenticate": Entry(SIGNED_IN),
    "mfa_index": Entry(SIGNED_IN),
    "mfa_authenticate": Entry(SENT_ON),
    "mfa_reauthenticate": Entry(SENT_ON),
    "mfa_activate_totp": Entry(SENT_ON),
    "mfa_deactivate_totp": Entry(NOT_SET_UP),
    "mfa_view_recovery_codes": Entry(NOT_SET_UP),
    "mfa_generate_recovery_codes": Entry(SENT_ON),
    "mfa_download_recovery_codes": Entry(NOT_SET_UP),
    "mfa_list_webauthn": Entry(SIGNED_IN),
    "mfa_add_webauthn": Entry(SENT_ON),
    "mfa_edit_webauthn": Entry(SENT_ON, path=fixed(pk=1)),
    "mfa_remove_webauthn": Entry(SENT_ON, path=fixed(pk=1)),
    "mfa_reauthenticate_webauthn": Entry(SENT_ON),
    "mfa_login_webauthn": Entry(SENT_ON),
    "usersessions_list": Entry(SIGNED_IN),
    # machines
    "pages:store_card": Entry(PUBLIC),
    "pages:card": Entry(always(row(404)) | dict.fromkeys(("released", "unlisted"), row(200)), path=of_listing),
    "machine:service_worker": Entry(PUBLIC),
    "pages:manifest": Entry(PUBLIC),
    "pages:offline": Entry(PUBLIC),
    "embed_script": Entry(PUBLIC),
    "playground:embed": Entry(PUBLIC, path=thing("embed")),
    "playground:embed_ask": Entry(act=PUBLIC, path=thing("embed"), body=question_in_a_frame, accept=SCRIPT),
    "playground:embed_events": Entry(GONE, path=fixed(ticket="made-up")),
    "pages:studio_embed": Entry(EDITORS, ACT_EDITORS, path=of_listing, body=fixed(tokens_per_day=9000)),
    "pages:feed": Entry(PUBLIC),
    "pages:feed_of_use_case": Entry(PUBLIC, path=fixed(use_case="chat")),
    "pages:feed_of_publisher": Entry(PUBLIC, path=publisher),
    "pages:feed_of_versions": Entry(always(row(404)) | dict.fromkeys(("released", "unlisted"), row(200)), path=of_listing),
    "accounts:privacy": Entry(SIGNED_IN),
    "accounts:export": Entry(SENT_ON),
    "accounts:delete": Entry(SENT_ON, SENT_ON, writes=False),
    "accounts:keep": Entry(None, ACT_SIGNED_IN, writes=False),
    "machine:icon": Entry(GONE, path=fixed(digest="0" * 64)),  # nobody has one
    "machine:healthz": Entry(PUBLIC),
    "machine:readyz": Entry(PUBLIC),
    "machine:metrics": Entry(PUBLIC),
    "machine:robots": Entry(PUBLIC),
    "machine:sitemap": Entry(PUBLIC),
    "machine:sitemap_part": Entry(PUBLIC, path=fixed(part="gpts-0")),
    # the APIs without a key; tests/api/test_access_with_a_key.py asks them with one
    "api:listings": Entry(PUBLIC),
    "api:listing": Entry(APPROVED, path=of_listing),
    "api:arena": Entry(PUBLIC),
    "api:schema": Entry(PUBLIC),
    "api:docs": Entry(PUBLIC),
    "api:unknown": Entry(GONE, GONE, path=fixed(rest="x")),
    "openai:models": Entry(NO_KEY),
    "openai:model": Entry(NO_KEY, path=fixed(model="lab/gpt-released")),
    "openai:chat_completions": Entry(act=NO_KEY, body=fixed(model="lab/gpt-released")),
    "openai:embeddings": Entry(act=NO_KEY, body=fixed(model="lab/gpt-released")),
    "openai:files": Entry(NO_KEY, NO_KEY),
    "openai:file": Entry(NO_KEY, path=thing("file of requests", "file")),
    "openai:file_content": Entry(NO_KEY, path=thing("file of requests", "file")),
    "v1_batches:batches": Entry(NO_KEY, NO_KEY),
    "v1_batches:batch": Entry(NO_KEY, path=thing("batch under way", "batch")),
    "v1_batches:cancel": Entry(act=NO_KEY, path=thing("batch under way", "batch")),
    "openai:unknown": Entry(GONE, GONE, path=fixed(rest="x")),
}


@pytest.fixture
def world(db: None) -> World:
    return access.build_world()


def test_every_address_is_in_the_table() -> None:
    ours = {name for name in access.every_address() if not name.startswith("admin:")}

    assert sorted(ours - set(TABLE)) == []
    assert sorted(set(TABLE) - ours) == []


PARTS = {"pages": "shop and studio", "moderation": "reviews", "ratings": "reviews", "api": "reviews"}  # that run beside each other


@pytest.mark.parametrize("part", ["shop and studio", "reviews", "the rest"])
def test_who_gets_what(world: World, part: str) -> None:
    wrong = {}
    for name, entry in TABLE.items():
        for state in entry.states if PARTS.get(name.partition(":")[0], "the rest") == part else ():
            for method, rows in (("GET", entry.page), ("POST", entry.act)):
                if rows is not None and state in rows and (found := _mismatches(world, state, method, name, entry)):
                    wrong[f"{method} {name} ({state})"] = found

    assert not wrong, as_lines(wrong)


def as_lines(wrong: Mapping[str, Any]) -> str:
    return "\n".join(f"{what}: {found}" for what, found in wrong.items())


def _mismatches(world: World, state: str, method: str, name: str, entry: Entry) -> dict[str, Any]:
    rows = entry.page if method == "GET" else entry.act
    assert rows is not None
    path, body, shown = reverse(name, kwargs=entry.path(world, state)), entry.body(world, state), state if entry.path in BY_STATE else ""
    got, wrong = {}, {}
    for role in ROLES:
        given = partial(entry.given, world, state, role)
        client = world.clients["nobody" if role == "visitor" and name.startswith(APIS) else role]
        got[role], said, written = access.ask(client, method, path, body, given=given, accept=entry.accept, **entry.headers)
        wrong |= said_or_written(role, got[role], said, written, shown=shown)
        if method == "POST" and isinstance(got[role], int) and got[role] < 400 and entry.writes and not written:
            wrong[f"{role} writes nothing"] = got[role]
    return wrong | access.differences(rows[state], got)


def said_or_written(role: str, got: Outcome, said: str, written: list[str], *, shown: str = "") -> dict[str, Any]:
    """What should not have been: words for others on the page, and rows of an act that was refused. `shown` is whose page it is."""
    wrong: dict[str, Any] = {}
    if role not in INSIDERS and (leaks := [state for state in STATES if _leaks(state, said, shown)]):
        wrong[f"{role} reads"] = leaks
    if written and (got in (LOGIN, ADMIN_LOGIN) or int(got) >= 400):
        wrong[f"{role} writes"] = written
    return wrong


def _leaks(state: str, said: str, shown: str) -> bool:
    """An approved GPT shows its texts and starters to everybody, or to who knows its address, never its instructions."""
    open_to_all = state == "released" or (state == "unlisted" and shown == state)
    return (f"{access.secret(state)} instructions" if open_to_all else access.secret(state)) in said


def test_the_demos_own_fine_tune_is_watched_by_everybody_and_touched_by_operators_alone(world: World) -> None:
    """Of members of another publisher nobody is more than a visitor here."""
    job = access.make_open_job()
    watched, acted = row(200), row(404, visitor=LOGIN, operator=302)

    for name, method, expected in (
        ("job", "GET", watched),
        ("events", "GET", watched),
        ("pause", "POST", acted),
        ("cancel", "POST", acted),
    ):
        path = reverse(f"jobs:{name}", args=[job.public_id])
        asked = {role: access.ask(world.clients[role], method, path) for role in ROLES}
        assert access.differences(expected, {role: got for role, (got, _said, _written) in asked.items()}) == {}, name
        assert all(bool(written) == (method == "POST" and got == 302) for got, _said, written in asked.values()), name
