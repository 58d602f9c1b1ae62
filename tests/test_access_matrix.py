"""Who gets what: every address × every role × every state of a GPT. An address that is not in the table fails the test.

A page is asked for with GET, an act with POST; what a refused act wrote is looked for too. Whatever the status, nobody
without the right ever reads a word of a GPT that was not approved, or of instructions at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from django.contrib import admin
from django.urls import reverse

from store.accounts.admin import AppendOnlyAdmin
from tests import access
from tests.access import ADMIN_LOGIN, LOGIN, ROLES, STATES, Outcome, World

DONE = frozenset({200, 201, 302, 303, 400, 409, 413, 422, 503})  # the act was let through; what it says to an empty form is its own matter
Row = Mapping[str, Outcome | frozenset[Outcome]]
Rows = Mapping[str, Row]  # by state
INSIDERS = frozenset({"member", "maintainer", "owner", "reviewer", "operator"})


def row(default: Outcome | frozenset[Outcome], **special: Outcome | frozenset[Outcome]) -> Row:
    return {role: special.get(role, default) for role in ROLES}


def always(one: Row) -> Rows:
    return dict.fromkeys(STATES, one)


PUBLIC = always(row(200))
GONE = always(row(404))
SIGNED_IN = always(row(200, visitor=LOGIN))
ACT_SIGNED_IN = always(row(DONE, visitor=LOGIN))
REVIEWERS = always(row(404, visitor=LOGIN, reviewer=200, operator=200))
ACT_REVIEWERS = always(row(404, visitor=LOGIN, reviewer=DONE, operator=DONE))
MEMBERS = always(row(404, visitor=LOGIN, member=200, maintainer=200, owner=200))
EDITORS = always(row(404, visitor=LOGIN, member=403, maintainer=200, owner=200))
ACT_EDITORS = always(row(404, visitor=LOGIN, member=403, maintainer=DONE, owner=DONE))
ACT_EDITORS_OR_OPERATOR = always({**ACT_EDITORS["released"], "operator": DONE})
ACT_OWNERS = always(row(404, visitor=LOGIN, member=403, maintainer=403, owner=DONE))
MINE = always(row(404, visitor=LOGIN, user=200))  # something that belongs to the role "user"
ACT_MINE = always(row(404, visitor=LOGIN, user=DONE))
ONLY_MINE = always(row(404, user=200))  # the same, where a visitor has things too
ACT_ONLY_MINE = always(row(404, user=DONE))
MEMBERS_DONE = always({role: DONE if role in INSIDERS else 404 for role in ROLES})
TRIED = MEMBERS_DONE | {"released": row(DONE), "suspended": row(404, reviewer=DONE, operator=DONE)}
APPROVED_DONE = always(row(404)) | {"released": row(DONE), "suspended": TRIED["suspended"]}  # the unpinned name means what was approved
APPROVED = always({role: 200 if role in INSIDERS else 404 for role in ROLES}) | {"released": row(200)}
WITHDRAWING = always(row(404, visitor=LOGIN, member=403)) | {"sealed": ACT_EDITORS["sealed"]}  # nothing else is in review
NOT_USED = dict.fromkeys(INSIDERS, 403)
RATING = always(row(404, visitor=LOGIN, **NOT_USED)) | {"released": row(403, visitor=LOGIN, user=200)}  # only "user" has used it
ACT_RATING = RATING | {"released": row(403, visitor=LOGIN, user=DONE)}
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
    body: Callable[[World, str], dict[str, Any]] = _no_arguments  # of the POST

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


def submission_id(world: World, state: str) -> dict[str, Any]:
    return {"public_id": world.submissions.get(state, world.submissions["sealed"]).public_id}


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
    return {"version": world.versions[state].public_id, "text": "Hello"}


BY_STATE = frozenset({question_by_name, question_to_version, of_listing, of_version, listing_id, version_id, submission_id, check_of})

TABLE: dict[str, Entry] = {
    # the shop
    "pages:home": Entry(PUBLIC),
    "pages:explore": Entry(PUBLIC),
    "pages:listing": Entry(APPROVED, path=of_listing),
    "pages:publisher": Entry(PUBLIC, path=publisher),
    "pages:developers": Entry(PUBLIC),
    "pages:about": Entry(PUBLIC),
    "pages:policy": Entry(PUBLIC),
    "set_language": Entry(act=always(row(DONE))),
    # the studio
    "pages:studio": Entry(always(row(200, visitor=LOGIN, member=302, maintainer=302, owner=302))),  # on to their only publisher
    "pages:studio_new_publisher": Entry(SIGNED_IN, ACT_SIGNED_IN),
    "pages:studio_publisher": Entry(MEMBERS, path=publisher),
    "pages:studio_new_gpt": Entry(EDITORS, ACT_EDITORS, path=publisher),
    "pages:studio_listing": Entry(MEMBERS, path=of_listing),
    "pages:studio_texts": Entry(EDITORS, ACT_EDITORS, path=of_listing),
    "pages:studio_prices": Entry(act=ACT_EDITORS, path=of_listing),
    "pages:studio_permissions": Entry(act=ACT_EDITORS, path=of_listing),
    "pages:studio_visibility": Entry(act=ACT_EDITORS, path=of_listing, body=fixed(visibility="public")),
    "pages:studio_submit": Entry(act=ACT_EDITORS, path=of_listing),
    "pages:studio_withdraw": Entry(act=WITHDRAWING, path=of_listing),
    "pages:studio_new_version": Entry(EDITORS, ACT_EDITORS, path=of_listing),
    "pages:studio_version": Entry(EDITORS, ACT_EDITORS, path=of_version),
    "pages:studio_make_current": Entry(act=ACT_EDITORS, path=of_version),
    "pages:studio_delete_draft": Entry(act=ACT_EDITORS, path=of_version),
    # fine-tunes
    "jobs:finetunes": Entry(MEMBERS, path=publisher),
    "jobs:files": Entry(MEMBERS, path=publisher),
    "jobs:new": Entry(EDITORS, ACT_EDITORS, path=publisher),
    "jobs:settings": Entry(EDITORS, ACT_EDITORS, path=lambda w, _: {"slug": "lab", "base": w.things["base"], "file": w.things["file"]}),
    "jobs:job": Entry(always({**MEMBERS["released"], "operator": 200}), path=thing("job")),
    "jobs:events": Entry(always(row(404, member=200, maintainer=200, owner=200, operator=200)), path=thing("job")),
    "jobs:pause": Entry(act=ACT_EDITORS_OR_OPERATOR, path=thing("job")),
    "jobs:resume": Entry(act=ACT_EDITORS_OR_OPERATOR, path=thing("job")),
    "jobs:cancel": Entry(act=ACT_EDITORS_OR_OPERATOR, path=thing("job")),
    "jobs:retry": Entry(act=ACT_EDITORS_OR_OPERATOR, path=thing("job")),
    "jobs:make_version": Entry(act=ACT_EDITORS, path=thing("job")),
    # reviews
    "moderation:queue": Entry(REVIEWERS),
    "moderation:submission": Entry(REVIEWERS, path=submission_id),
    "moderation:claim": Entry(act=ACT_REVIEWERS, path=submission_id),
    "moderation:release": Entry(act=ACT_REVIEWERS, path=submission_id),
    "moderation:decide": Entry(act=ACT_REVIEWERS, path=submission_id, body=fixed(action="approve")),
    "moderation:withdraw": Entry(act=ACT_EDITORS, path=submission_id),
    "moderation:run_check_again": Entry(act=ACT_REVIEWERS, path=check_of),
    "moderation:listing": Entry(always(row(404, visitor=LOGIN, **dict.fromkeys(INSIDERS, 200))), path=listing_id),
    "moderation:suspend": Entry(act=ACT_REVIEWERS, path=version_id, body=fixed(reason="Because.")),
    "moderation:restore": Entry(act=ACT_REVIEWERS, path=version_id, body=fixed(reason="Because.")),
    # ratings
    "ratings:all": Entry(APPROVED, path=listing_id),
    "ratings:flags": Entry(REVIEWERS),
    "ratings:settle_flag": Entry(act=ACT_REVIEWERS, path=thing("flag")),
    "ratings:withdraw": Entry(act=ACT_MINE, path=thing("rating")),
    "ratings:reply": Entry(EDITORS, ACT_EDITORS, path=thing("rating"), body=fixed(text="Thank you.")),
    "ratings:flag": Entry(SIGNED_IN, always(row(DONE, visitor=LOGIN, user=403)), path=thing("rating"), body=fixed(reason="spam")),
    "ratings:rate": Entry(RATING, ACT_RATING, path=listing_id, body=fixed(stars=5)),
    # the chat
    "playground:chat": Entry(PUBLIC),
    "playground:new": Entry(always(row(302))),  # nothing named to talk to
    "playground:csrf": Entry(PUBLIC),
    "playground:start": Entry(act=APPROVED_DONE, body=question_by_name),
    "playground:try": Entry(act=TRIED, path=of_listing, body=question_to_version),
    "playground:events": Entry(ONLY_MINE, path=thing("request")),
    "playground:stop": Entry(act=ACT_ONLY_MINE, path=thing("request")),
    "playground:keep": Entry(act=ACT_ONLY_MINE, path=thing("request"), body=fixed(text="Hello")),
    "playground:regenerate": Entry(act=ACT_ONLY_MINE, path=thing("answer")),
    "playground:edit": Entry(act=ACT_ONLY_MINE, path=thing("question"), body=fixed(text="Hello")),
    "playground:conversation": Entry(ONLY_MINE, path=thing("conversation")),
    "playground:ask": Entry(act=ACT_ONLY_MINE, path=thing("conversation"), body=fixed(text="Hello")),
    "playground:rename": Entry(act=ACT_ONLY_MINE, path=thing("conversation"), body=fixed(title="Hello")),
    "playground:delete": Entry(act=ACT_ONLY_MINE, path=thing("conversation")),
    "playground:export": Entry(ONLY_MINE, path=lambda w, _: {"public_id": w.things["conversation"], "form": "json"}),
    # people
    "accounts:settings": Entry(SIGNED_IN, ACT_SIGNED_IN),
    "accounts:security": Entry(SIGNED_IN),
    "accounts:keys": Entry(SIGNED_IN, ACT_SIGNED_IN),
    "accounts:revoke_key": Entry(act=ACT_MINE, path=thing("key", "key")),
    "accounts:publishers": Entry(SIGNED_IN),
    "accounts:members": Entry(MEMBERS, ACT_OWNERS, path=publisher, body=fixed(username="user", role="member")),
    "accounts:remove_member": Entry(act=ACT_EDITORS, path=lambda w, _: {"slug": "lab", "member": w.things["maintainer"]}),
    "notifications:inbox": Entry(SIGNED_IN),
    "notifications:mark_all_read": Entry(act=ACT_SIGNED_IN),
    "notifications:mark_read": Entry(act=ACT_MINE, path=thing("notification")),
    "notifications:open": Entry(act=ACT_MINE, path=thing("notification")),
    "billing:wallet": Entry(SIGNED_IN),
    "billing:receipt": Entry(MINE, path=thing("receipt")),
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
    "machine:healthz": Entry(PUBLIC),
    "machine:readyz": Entry(always(row(frozenset({200, 503})))),
    "machine:metrics": Entry(PUBLIC),
    "machine:robots": Entry(PUBLIC),
    # the APIs
    "api:listings": Entry(PUBLIC),
    "api:listing": Entry(APPROVED, path=of_listing),
    "api:schema": Entry(PUBLIC),
    "api:docs": Entry(PUBLIC),
    "api:unknown": Entry(GONE, GONE, path=fixed(rest="x")),
    "openai:models": Entry(NO_KEY),
    "openai:model": Entry(NO_KEY, path=lambda w, _: {"model": "lab/gpt-released"}),
    "openai:chat_completions": Entry(act=NO_KEY),
    "openai:unknown": Entry(GONE, GONE, path=fixed(rest="x")),
}


@pytest.fixture
def world(db: None) -> World:
    return access.build_world()


def test_every_address_is_in_the_table() -> None:
    ours = {name for name in access.every_address() if not name.startswith("admin:")}

    assert sorted(ours - set(TABLE)) == []
    assert sorted(set(TABLE) - ours) == []


def test_who_gets_what(world: World) -> None:
    wrong = {}
    for name, entry in TABLE.items():
        for state in entry.states:
            path = reverse(name, kwargs=entry.path(world, state))
            for method, rows in (("GET", entry.page), ("POST", entry.act)):
                if rows is not None and (found := _mismatches(world, state, method, path, rows[state], entry.body(world, state))):
                    wrong[f"{method} {name} ({state})"] = found

    assert not wrong, _as_lines(wrong)


def _as_lines(wrong: Mapping[str, Any]) -> str:
    return "\n".join(f"{what}: {found}" for what, found in wrong.items())


def _mismatches(world: World, state: str, method: str, path: str, expected: Row, body: Mapping[str, Any]) -> dict[str, Any]:
    got, wrong = {}, {}
    for role in ROLES:
        got[role], said, written = access.ask(world.clients[role], method, path, body)
        if role not in INSIDERS and (leaks := [other for other in STATES if _leaks(other, said)]):
            wrong[f"{role} reads"] = leaks
        if got[role] in (403, 404, 405, LOGIN) and written:
            wrong[f"{role} writes"] = written
    return wrong | access.differences(expected, got)


def _leaks(state: str, said: str) -> bool:
    """An approved GPT shows its texts and starters to everybody, never its instructions."""
    return (f"{access.secret(state)} instructions" if state == "released" else access.secret(state)) in said


def test_the_admin_is_for_staff_with_the_permission(world: World) -> None:
    wrong = {}
    for model, model_admin in admin.site._registry.items():
        base = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        some = model._base_manager.first()
        paths = {name: reverse(f"{base}_{name}") for name in ("changelist", "add")}
        if some is not None:
            paths |= {name: reverse(f"{base}_{name}", args=[some.pk]) for name in ("change", "delete", "history")}
        frozen = isinstance(model_admin, AppendOnlyAdmin)
        for name, path in paths.items():
            allowed = 403 if frozen and name in ("add", "delete") else frozenset({200, 403})
            found = _mismatches(world, "released", "GET", path, row(ADMIN_LOGIN, staff=403, operator=allowed), {})
            if found:
                wrong[f"{base}_{name}"] = found

    assert not wrong, _as_lines(wrong)
    for name in ("admin:index", "admin:password_change"):
        assert _mismatches(world, "released", "GET", reverse(name), row(ADMIN_LOGIN, staff=200, operator=200), {}) == {}
