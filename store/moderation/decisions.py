"""What reviewers decide. Every decision is one conditional update and one row that is never changed."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from store.accounts import audit
from store.accounts.models import User
from store.catalog import listings, releases, revisions
from store.catalog.models import Listing, Version
from store.catalog.revisions import clean_text
from store.errors import Conflict
from store.moderation.errors import ClaimedByOther, Decided, ReasonMissing, StillChecking
from store.moderation.models import CLAIMED_FOR, Decision, Submission
from store.moderation.notices import tell_publisher
from store.moderation.reviewers import refuse_own, require_reviewer
from store.moderation.submissions import close
from store.notifications.models import Notification

Action = Decision.Action
QUEUED = frozenset({Submission.State.QUEUED})
REASON_CHARS = 4000


class _Outcome(NamedTuple):
    state: Submission.State
    notice: Notification.Kind


_OUTCOMES = {
    Action.APPROVE: _Outcome(Submission.State.APPROVED, Notification.Kind.SUBMISSION_APPROVED),
    Action.REQUEST_CHANGES: _Outcome(Submission.State.CHANGES_REQUESTED, Notification.Kind.SUBMISSION_CHANGES),
    Action.REJECT: _Outcome(Submission.State.REJECTED, Notification.Kind.SUBMISSION_REJECTED),
}


def claim(user: User, submission: Submission) -> None:
    """Keeps other reviewers from deciding it for half an hour; claiming again renews. Raises ClaimedByOther, Decided."""
    require_reviewer(user)
    with transaction.atomic():
        free = Q(claimed_by__isnull=True) | Q(claimed_by=user) | Q(claimed_at__lte=_claims_end_before())
        rows = Submission.objects.filter(free, pk=submission.pk, state__in=Submission.OPEN)
        if not rows.update(claimed_by=user, claimed_at=timezone.now()):
            submission.refresh_from_db()
            raise ClaimedByOther if submission.is_open else Decided
        audit.record(user, "submission.claim", submission.public_id)
    submission.refresh_from_db()


def release(user: User, submission: Submission) -> None:
    """Lets other reviewers have it. Raises Conflict when the user does not hold it."""
    require_reviewer(user)
    with transaction.atomic():
        if not Submission.objects.filter(pk=submission.pk, claimed_by=user).update(claimed_by=None, claimed_at=None):
            raise Conflict
        audit.record(user, "submission.release", submission.public_id)
    submission.refresh_from_db()


def approve(user: User, submission: Submission, *, reason: str = "") -> Decision:
    """Releases the version, makes the texts live and shows the listing as its publisher wants it by now."""
    with transaction.atomic():
        decision = _decide(user, submission, Action.APPROVE, clean_text(reason, param="reason", limit=REASON_CHARS))
        if submission.version is not None:
            releases.release(submission.version)
        if submission.revision is not None:
            revisions.make_live(submission.revision)
        listings.publish(submission.listing, version=submission.version)
    return decision


def request_changes(user: User, submission: Submission, *, reason: str) -> Decision:
    """Sends it back with a reason; the publisher answers with a new version or new texts."""
    return _send_back(user, submission, Action.REQUEST_CHANGES, reason)


def reject(user: User, submission: Submission, *, reason: str) -> Decision:
    return _send_back(user, submission, Action.REJECT, reason)


def suspend(user: User, version: Version, *, reason: str) -> Decision:
    """Stops a released version, and whatever builds on it, at once. Raises Conflict when it is not released."""
    return _act_on_version(user, version, Action.SUSPEND, reason)


def restore(user: User, version: Version, *, reason: str) -> Decision:
    return _act_on_version(user, version, Action.RESTORE, reason)


def suspend_listing(user: User, listing: Listing, *, reason: str) -> Decision:
    """Stops all versions of a listing, and whatever builds on one, at once. Raises Conflict when it is suspended already."""
    return _act_on_listing(user, listing, Action.SUSPEND, reason)


def restore_listing(user: User, listing: Listing, *, reason: str) -> Decision:
    return _act_on_listing(user, listing, Action.RESTORE, reason)


def _decide(user: User, submission: Submission, action: Action, reason: str) -> Decision:
    require_reviewer(user)
    refuse_own(user, submission.listing.publisher)
    outcome = _OUTCOMES[action]
    current = Submission.objects.select_for_update().get(pk=submission.pk)
    if current.claim_ends_at is not None and current.claimed_by_id != user.pk:
        raise ClaimedByOther
    if not close(submission, outcome.state, expected=QUEUED):
        raise StillChecking if current.state == Submission.State.CHECKING else Decided
    return _write(
        user, action, reason, listing=submission.listing, version=submission.version, submission=submission, notice=outcome.notice
    )


def _send_back(user: User, submission: Submission, action: Action, reason: str) -> Decision:
    reason = _required(reason)
    with transaction.atomic():
        decision = _decide(user, submission, action, reason)
        if submission.version is not None:
            releases.refuse(submission.version)
        if submission.revision is not None:
            revisions.refuse(submission.revision)
    return decision


def _act_on_version(user: User, version: Version, action: Action, reason: str) -> Decision:
    require_reviewer(user)
    refuse_own(user, version.listing.publisher)
    reason = _required(reason)
    suspends = action == Action.SUSPEND
    with transaction.atomic():
        (releases.suspend if suspends else releases.restore)(version)
        notice = Notification.Kind.VERSION_SUSPENDED if suspends else Notification.Kind.VERSION_RESTORED
        return _write(user, action, reason, listing=version.listing, version=version, notice=notice)


def _act_on_listing(user: User, listing: Listing, action: Action, reason: str) -> Decision:
    require_reviewer(user)
    refuse_own(user, listing.publisher)
    reason = _required(reason)
    suspends = action == Action.SUSPEND
    with transaction.atomic():
        (listings.suspend if suspends else listings.restore)(listing)
        notice = Notification.Kind.VERSION_SUSPENDED if suspends else Notification.Kind.VERSION_RESTORED
        return _write(user, action, reason, listing=listing, version=None, notice=notice)


def _write(
    user: User,
    action: Action,
    reason: str,
    *,
    listing: Listing,
    version: Version | None,
    notice: Notification.Kind,
    submission: Submission | None = None,
) -> Decision:
    decision = Decision.objects.create(
        submission=submission, listing=listing, version=version, action=action, reason=reason, decided_by=user
    )
    target = submission or version or listing
    subject = "submission" if submission else "version" if version else "listing"
    audit.record(user, f"{subject}.{action}", target.public_id, decision=decision.public_id)
    tell_publisher(listing, notice, cause=decision, version=version, reason=reason)
    return decision


def _required(reason: str) -> str:
    cleaned = clean_text(reason, param="reason", limit=REASON_CHARS)
    if not cleaned:
        raise ReasonMissing(param="reason")
    return cleaned


def _claims_end_before() -> datetime:
    return timezone.now() - CLAIMED_FOR
