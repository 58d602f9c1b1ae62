from __future__ import annotations

from typing import Any

import pytest

from store.accounts.models import AuditEntry, Membership
from store.catalog import publishing, releases, revisions
from store.catalog.errors import BaseUnavailable, Sealed
from store.catalog.models import Listing, Version
from store.errors import Conflict, NotAllowed, NotFound
from store.jobs.models import Job
from store.moderation import checks, decisions, submissions
from store.moderation.errors import AlreadySubmitted, Decided, NothingToSubmit
from store.moderation.models import Submission
from store.notifications.models import Notification
from tests import making
from tests.moderation import acting

pytestmark = pytest.mark.django_db


def test_submitting_seals_version_and_texts_and_starts_the_checks() -> None:
    base = making.make_base()
    version = making.draft_prompt(base, instructions="Be brief.", parameters={"temperature": 0.2})

    submission = acting.submit(version, note="Please look.")

    version.refresh_from_db()
    assert (version.state, version.digest) == ("sealed", releases.content_digest(version))
    assert submission.revision == revisions.latest(version.listing, "sealed")
    assert (submission.state, submission.listing.wanted_visibility) == ("checking", "public")
    check = submission.checks.get()
    job = Job.objects.get(public_id=check.job)
    assert (check.name, check.state, job.kind, job.subject, job.publisher) == ("generates", "pending", "check", submission.public_id, None)
    assert job.params == {
        "check": "generates",
        "base": base.artifact.digest,
        "adapter": None,
        "instructions": "Be brief.",
        "starters": ["What is a token?"],
        "parameters": {"temperature": 0.2},
    }
    assert AuditEntry.objects.get(action="submission.submit").target == submission.public_id


def test_an_adapter_is_checked_with_its_base() -> None:
    base, listing = making.make_base(), making.make_listing()
    artifact = making.make_artifact()
    owner = making.owner_of(listing.publisher)
    version = publishing.create_adapter_version(owner, listing, number="1.0.0", base=base, artifact=artifact, made_by="job_1")

    submission = acting.submit(version)

    assert list(submission.checks.values_list("name", flat=True)) == ["files", "loads", "generates", "perplexity"]
    params = [job.params for job in Job.objects.filter(kind="check")]
    assert {(p["base"], p["adapter"]) for p in params} == {(base.artifact.digest, artifact.digest)}


def test_texts_alone_go_straight_to_the_queue() -> None:
    listing = making.make_base().listing
    owner = making.owner_of(listing.publisher)
    revision = publishing.edit_texts(owner, listing, texts={"en": {"name": "New name", "summary": "x"}})

    submission = submissions.submit(owner, listing, revision=revision)

    submission.refresh_from_db()
    assert submission.state == "queued"
    assert not submission.checks.exists()
    assert not Job.objects.exists()


def test_only_owners_and_maintainers_submit_and_withdraw() -> None:
    version = making.draft_prompt(making.make_base())
    listing = version.listing
    member, maintainer = making.join(listing.publisher, Membership.Role.MEMBER), making.join(listing.publisher, Membership.Role.MAINTAINER)

    for user, refused in ((member, NotAllowed), (making.make_user(), NotFound), (making.make_reviewer(), NotFound)):
        with pytest.raises(refused):
            submissions.submit(user, listing, version=version)
    version.refresh_from_db()
    assert version.state == "draft"
    assert not Submission.objects.exists()

    submission = submissions.submit(maintainer, listing, version=version)
    for user, refused in ((member, NotAllowed), (making.make_user(), NotFound)):
        with pytest.raises(refused):
            submissions.withdraw(user, submission)
    submission.refresh_from_db()
    assert submission.state == "checking"


def test_what_can_not_be_submitted_stays_as_it_was() -> None:
    base = making.make_base()
    version = making.draft_prompt(base)
    listing, owner = version.listing, making.owner_of(version.listing.publisher)
    strange = making.draft_prompt(base)

    with pytest.raises(NothingToSubmit):
        submissions.submit(owner, listing)
    with pytest.raises(NotFound):
        submissions.submit(owner, listing, version=strange)
    publishing.suspend(base)
    with pytest.raises(BaseUnavailable):
        submissions.submit(owner, listing, version=version)
    publishing.restore(base)
    Listing.objects.filter(pk=listing.pk).update(suspended_at="2026-01-01T00:00Z")
    with pytest.raises(Conflict):
        submissions.submit(owner, listing, version=version)

    assert set(Version.objects.filter(pk__in=[version.pk, strange.pk]).values_list("state", flat=True)) == {"draft"}
    assert not Submission.objects.exists()
    assert not Job.objects.exists()


def test_one_submission_of_a_listing_is_open_at_a_time() -> None:
    base = making.make_base()
    first = making.draft_prompt(base)
    second = making.draft_prompt(base, first.listing, number="1.1.0")
    submission = acting.submit(first)

    with pytest.raises(AlreadySubmitted):
        acting.submit(second)
    second.refresh_from_db()
    assert second.state == "draft"

    submissions.withdraw(acting.owner(submission), submission)
    first.refresh_from_db()
    assert (first.state, submission.state) == ("yanked", "withdrawn")
    with pytest.raises(Decided):
        submissions.withdraw(acting.owner(submission), submission)
    with pytest.raises(Sealed):
        acting.submit(first)
    again = acting.submit(second)
    assert (again.state, again.revision.texts.get().name) == ("checking", submission.revision.texts.get().name)
    assert again.revision != submission.revision


def test_passed_checks_bring_it_to_the_queue_with_their_evidence() -> None:
    listing = making.make_listing()
    owner = making.owner_of(listing.publisher)
    base = making.make_base()
    version = publishing.create_adapter_version(owner, listing, number="1.0.0", base=base, artifact=making.make_artifact())
    submission = acting.submit(version)
    measured: dict[str, Any] = {"name": "perplexity", "value": 12.5, "low": 12.0, "high": 13.0, "base_value": 14.0, "unit": ""}
    measured |= {"lower_is_better": True, "method": {"seed": 7}}
    wrong = {"name": "speed", "value": "fast"}

    for name in ("files", "loads", "generates"):
        acting.end_check(submission, name)
        submission.refresh_from_db()
        assert submission.state == "checking"
    job = acting.end_check(submission, "perplexity", result=acting.PASSED | {"measurements": [measured, wrong]})

    submission.refresh_from_db()
    assert submission.state == "queued"
    check = submission.checks.get(name="files")
    assert (check.state, check.code, check.finding, check.evidence) == ("passed", "fine", "Fine.", {"files": 3})
    assert check.finished_at is not None
    kept = version.measurements.get()
    assert (kept.value, kept.low, kept.high, kept.base_value, kept.lower_is_better, kept.method) == (
        12.5,
        12.0,
        13.0,
        14.0,
        True,
        {"seed": 7},
    )
    assert kept.made_by == job.public_id
    assert not Notification.objects.exists()


def test_a_failed_check_is_for_a_reviewer_to_judge_and_told_to_the_publisher() -> None:
    submission = acting.submit(making.draft_prompt(making.make_base()))

    acting.end_check(submission, "generates", result={"state": "failed", "code": "empty", "finding": "Empty.", "evidence": {}})

    submission.refresh_from_db()
    assert submission.state == "queued"
    assert submission.checks.get().state == "failed"
    told = Notification.objects.get()
    assert (told.user, told.kind) == (acting.owner(submission), "submission_checks_failed")
    assert told.url == f"/review/gpts/{submission.listing.public_id}/"


@pytest.mark.parametrize(
    ("state", "fields", "code"),
    [
        (Job.State.FAILED, {"error": "The worker died.", "error_code": "lost"}, "lost"),
        (Job.State.CANCELLED, {}, "cancelled"),
        (Job.State.SUCCEEDED, {"result": {"state": "wonderful"}}, "bad_result"),
    ],
)
def test_a_check_that_could_not_be_run_says_so_and_can_be_run_again(state: Job.State, fields: dict, code: str) -> None:
    submission = acting.submit(making.draft_prompt(making.make_base()))
    first = acting.end_check(submission, "generates", state, **fields)
    check = submission.checks.get()
    submission.refresh_from_db()
    assert (check.state, check.code, submission.state) == ("error", code, "queued")

    with pytest.raises(NotFound):
        checks.run_again(acting.owner(submission), check)
    checks.run_again(making.make_reviewer(), check)

    check.refresh_from_db()
    submission.refresh_from_db()
    assert (check.state, submission.state) == ("pending", "checking")
    assert check.job != first.public_id
    assert acting.pass_checks(submission).state == "queued"
    check.refresh_from_db()
    assert check.state == "passed"


def test_an_outcome_after_the_withdrawal_changes_no_state() -> None:
    submission = acting.submit(making.draft_prompt(making.make_base()))
    submissions.withdraw(acting.owner(submission), submission)

    acting.end_check(submission, "generates")

    submission.refresh_from_db()
    assert (submission.state, submission.checks.get().state) == ("withdrawn", "passed")


def test_a_listing_keeps_its_visibility_when_only_its_texts_are_approved() -> None:
    base = making.make_base()
    version = making.draft_prompt(base)
    submission = acting.pass_checks(acting.submit(version, visibility="unlisted"))
    decisions.approve(making.make_reviewer(), submission)
    listing, owner = submission.listing, acting.owner(submission)
    listing.refresh_from_db()
    assert listing.visibility == "unlisted"

    revision = publishing.edit_texts(owner, listing, texts={"en": {"name": "Better", "summary": "x"}})
    decisions.approve(making.make_reviewer(), submissions.submit(owner, listing, revision=revision))

    listing.refresh_from_db()
    assert (listing.visibility, listing.text("en").name) == ("unlisted", "Better")


@pytest.mark.parametrize(
    ("submitted_with", "chosen_in_review", "shown_as"),
    [(None, "unlisted", "unlisted"), ("public", "unlisted", "unlisted"), ("unlisted", "public", "public"), ("unlisted", None, "unlisted")],
)
def test_an_approval_shows_the_listing_as_its_publisher_chose_last(
    submitted_with: str | None, chosen_in_review: str | None, shown_as: str
) -> None:
    version = making.make_prompt(making.make_base())
    listing, owner = version.listing, making.owner_of(version.listing.publisher)
    further = making.draft_prompt(version.base, listing, number="1.1.0")
    submission = acting.pass_checks(acting.submit(further, visibility=submitted_with))
    assert Listing.objects.get(pk=listing.pk).visibility == "public"

    if chosen_in_review:
        publishing.set_visibility(owner, listing, visibility=chosen_in_review)
    decisions.approve(making.make_reviewer(), submission)

    listing.refresh_from_db()
    assert (listing.visibility, listing.current_version) == (shown_as, further)
