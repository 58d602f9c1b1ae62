from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.contrib import admin
from django.contrib.auth.models import AnonymousUser, Group
from django.db import connection
from django.test import RequestFactory
from django.utils import timezone

from store.accounts.models import AuditEntry, Membership, User
from store.catalog import naming, publishing
from store.catalog.models import Listing, Version
from store.errors import Conflict, DomainError, NotAllowed, NotFound
from store.moderation import decisions, imports
from store.moderation.errors import ClaimedByOther, Decided, ReasonMissing, StillChecking
from store.moderation.models import Decision, Submission
from store.notifications.models import Notification
from tests import making
from tests.moderation import acting

VISITOR = AnonymousUser()


@pytest.mark.django_db
def test_an_approval_lists_the_gpt_for_everybody_and_tells_its_publisher() -> None:
    submission = acting.queued_prompt()
    maintainer = making.join(submission.listing.publisher, Membership.Role.MAINTAINER)
    making.join(submission.listing.publisher, Membership.Role.MEMBER)
    reviewer = making.make_reviewer()
    assert submission.listing not in Listing.objects.listed()

    decision = decisions.approve(reviewer, submission)

    submission.refresh_from_db()
    assert (submission.state, submission.closed_at is not None) == ("approved", True)
    listing = Listing.objects.listed().get(pk=submission.listing_id)
    assert (listing.current_version, listing.visibility, listing.live_revision) == (submission.version, "public", submission.revision)
    assert listing.published_at is not None
    assert naming.resolve(listing.full_name, VISITOR) == submission.version
    assert (decision.action, decision.decided_by, decision.submission) == ("approve", reviewer, submission)
    told = Notification.objects.filter(kind="submission_approved")
    assert {n.user for n in told} == {acting.owner(submission), maintainer}
    assert AuditEntry.objects.get(action="submission.approve").actor == reviewer


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("act", "state", "kind"),
    [
        (decisions.request_changes, "changes_requested", "submission_changes"),
        (decisions.reject, "rejected", "submission_rejected"),
    ],
)
def test_what_is_sent_back_needs_a_reason_and_stays_hidden(act: Callable, state: str, kind: str) -> None:
    submission = acting.queued_prompt()
    reviewer = making.make_reviewer()

    with pytest.raises(ReasonMissing):
        act(reviewer, submission, reason="  ")
    submission.refresh_from_db()
    assert submission.state == "queued"
    assert not Decision.objects.exists()

    act(reviewer, submission, reason="It does not summarise.")

    version = Version.objects.get(pk=submission.version_id)
    submission.revision.refresh_from_db()
    assert (submission.state, version.state, submission.revision.state) == (state, "refused", "refused")
    assert submission.listing not in Listing.objects.listed()
    with pytest.raises(NotFound):
        naming.resolve(version.full_name, VISITOR)
    told = Notification.objects.get(kind=kind)
    assert told.params == {"listing": version.listing.full_name, "version": "1.0.0", "reason": "It does not summarise."}


@pytest.mark.django_db
def test_nobody_without_the_right_decides() -> None:
    submission = acting.queued_prompt()
    publisher = submission.listing.publisher
    member_and_reviewer = making.join(publisher, Membership.Role.MEMBER)
    member_and_reviewer.groups.add(Group.objects.get(name="reviewers"))
    people: list[tuple[User, type[DomainError]]] = [
        (making.make_user(), NotFound),
        (acting.owner(submission), NotFound),
        (making.make_user(is_staff=True), NotFound),
        (User.objects.get(pk=member_and_reviewer.pk), NotAllowed),
    ]

    for user, refused in people:
        for act in (decisions.approve, decisions.request_changes, decisions.reject):
            with pytest.raises(refused):
                act(user, submission, reason="x")
        with pytest.raises(refused):
            decisions.suspend_listing(user, submission.listing, reason="x")

    submission.refresh_from_db()
    assert submission.state == "queued"
    assert not Decision.objects.exists()
    assert submission.listing.suspended_at is None


@pytest.mark.django_db
def test_nothing_is_decided_before_the_checks_have_ended_or_twice() -> None:
    submission = acting.submit(making.draft_prompt(making.make_base()))
    reviewer = making.make_reviewer()
    with pytest.raises(StillChecking):
        decisions.approve(reviewer, submission)

    acting.pass_checks(submission)
    decisions.approve(reviewer, submission)
    for act in (decisions.approve, decisions.reject):
        with pytest.raises(Decided):
            act(reviewer, submission, reason="x")

    assert Decision.objects.count() == 1
    assert Version.objects.get(pk=submission.version_id).state == "released"


@pytest.mark.django_db
def test_a_claim_holds_others_off_until_it_ends_or_is_released() -> None:
    submission = acting.queued_prompt()
    first, second = making.make_reviewer(), making.make_reviewer()
    decisions.claim(first, submission)

    with pytest.raises(ClaimedByOther):
        decisions.claim(second, submission)
    with pytest.raises(ClaimedByOther):
        decisions.reject(second, submission, reason="x")
    with pytest.raises(Conflict):
        decisions.release(second, submission)
    submission.refresh_from_db()
    assert (submission.claimed_by, submission.state) == (first, "queued")

    decisions.release(first, submission)
    decisions.claim(second, submission)
    Submission.objects.filter(pk=submission.pk).update(claimed_at=timezone.now() - timedelta(minutes=31))
    decisions.approve(first, submission)
    assert (submission.state, submission.claimed_by) == ("approved", None)


@pytest.mark.django_db
def test_a_suspension_stops_at_once_what_builds_on_it_and_can_be_taken_back() -> None:
    base = making.make_base()
    prompt = making.make_prompt(base)
    reviewer = making.make_reviewer()

    with pytest.raises(ReasonMissing):
        decisions.suspend(reviewer, base, reason="")
    assert prompt.listing in Listing.objects.listed()

    decisions.suspend(reviewer, base, reason="It leaks.")
    assert not Listing.objects.listed().exists()
    with pytest.raises(NotFound):
        naming.resolve(prompt.full_name, VISITOR)
    with pytest.raises(Conflict):
        decisions.suspend(reviewer, base, reason="Again.")

    decisions.restore(reviewer, base, reason="Mended.")
    assert naming.resolve(prompt.full_name, VISITOR) == prompt
    assert [d.action for d in Decision.objects.filter(version=base)] == ["restore", "suspend"]
    assert Notification.objects.filter(user=making.owner_of(base.listing.publisher)).count() == 2


@pytest.mark.django_db
def test_an_approval_whose_base_was_suspended_meanwhile_changes_nothing() -> None:
    submission = acting.queued_prompt()
    reviewer = making.make_reviewer()
    decisions.suspend_listing(reviewer, submission.version.base.listing, reason="It leaks.")

    with pytest.raises(Conflict):
        decisions.approve(reviewer, submission)

    submission = Submission.objects.get(pk=submission.pk)
    assert (submission.state, submission.version.state, submission.revision.state) == ("queued", "sealed", "sealed")
    assert not Decision.objects.filter(action="approve").exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "acts", [(decisions.approve, decisions.reject), (decisions.approve, decisions.approve), (decisions.claim, decisions.claim)]
)
def test_of_two_reviewers_at_once_one_wins(acts: tuple[Callable, Callable]) -> None:
    submission = acting.queued_prompt()
    reviewers = [making.make_reviewer(), making.make_reviewer()]
    start, outcomes = threading.Barrier(2), []

    def act(user: User, decide: Callable) -> None:
        try:
            mine = Submission.objects.select_related("listing__publisher", "version", "revision").get(pk=submission.pk)
            start.wait(timeout=10)
            decide(user, mine) if decide is decisions.claim else decide(user, mine, reason="Because.")
            outcomes.append("won")
        except Conflict as error:
            outcomes.append(type(error).__name__)
        finally:
            connection.close()

    threads = [threading.Thread(target=act, args=pair) for pair in zip(reviewers, acts, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)

    assert sorted(outcomes) in (["Decided", "won"], ["ClaimedByOther", "won"])
    submission.refresh_from_db()
    if acts[0] is decisions.claim:
        assert submission.claimed_by in reviewers
        return
    decision = Decision.objects.get()
    expected = {"approve": ("approved", "released"), "reject": ("rejected", "refused")}[decision.action]
    assert (submission.state, Version.objects.get(pk=submission.version_id).state) == expected


@pytest.mark.django_db
def test_decisions_can_not_be_touched_in_the_admin() -> None:
    submission = acting.queued_prompt()
    decision = decisions.approve(making.make_reviewer(), submission)
    model_admin = admin.site._registry[Decision]
    request = RequestFactory().get("/")
    request.user = making.make_user(is_staff=True, is_superuser=True)

    assert not model_admin.has_add_permission(request)
    assert not model_admin.has_change_permission(request, decision)
    assert not model_admin.has_delete_permission(request, decision)


@pytest.mark.django_db
def test_an_operator_publishes_what_he_imported_and_nobody_else_does() -> None:
    listing = making.make_listing()
    owner = making.owner_of(listing.publisher)

    version = publishing.create_weights_version(owner, listing, number="1.0.0", artifact=making.make_artifact(), facts=making.FACTS)
    with pytest.raises(Conflict):
        imports.approve_as_operator(owner, version, reason="x")
    assert Version.objects.get(pk=version.pk).state == "draft"

    operator = making.make_user(is_superuser=True)
    decision = imports.approve_as_operator(operator, version, reason="Imported by an operator.")

    assert naming.resolve(version.full_name, VISITOR) == version
    assert decision is not None
    assert (decision.decided_by, decision.action) == (operator, "approve")
    assert AuditEntry.objects.filter(actor=operator, action="submission.approve_as_operator").count() == 1
    assert decision.submission is not None
    assert decision.submission.checks.count() == 4
    assert imports.approve_as_operator(operator, version, reason="Again.") is None
    assert Decision.objects.count() == 1
