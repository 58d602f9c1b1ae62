"""What the tests of moderation do to a submission: end its check jobs as a worker would, and decide."""

from __future__ import annotations

from typing import Any

from store.accounts.models import User
from store.catalog.models import Listing, Version
from store.jobs import outcomes
from store.jobs.models import Job
from store.moderation import submissions
from store.moderation.models import Submission
from tests import making

PASSED = {"state": "passed", "code": "fine", "finding": "Fine.", "evidence": {"files": 3}, "measurements": []}


def end_check(submission: Submission, name: str, state: Job.State = Job.State.SUCCEEDED, **fields: Any) -> Job:
    """Ends the job of one check; a success has the result PASSED unless `result` says otherwise."""
    job = Job.objects.get(public_id=submission.checks.get(name=name).job)
    if state == Job.State.SUCCEEDED:
        fields.setdefault("result", PASSED)
    ended = outcomes.end(Job.objects.filter(pk=job.pk), state, **fields)
    assert ended is not None
    return ended


def pass_checks(submission: Submission) -> Submission:
    for check in submission.checks.filter(state="pending"):
        end_check(submission, check.name)
    submission.refresh_from_db()
    return submission


def submit(version: Version, **fields: Any) -> Submission:
    listing = Listing.objects.select_related("publisher").get(pk=version.listing_id)
    return submissions.submit(making.owner_of(listing.publisher), listing, version=version, **fields)


def queued_prompt() -> Submission:
    """A new prompt GPT whose checks have passed."""
    return pass_checks(submit(making.draft_prompt(making.make_base())))


def owner(submission: Submission) -> User:
    return making.owner_of(submission.listing.publisher)
