"""Handing a version, a text or both to the reviewers, and taking them back."""

from __future__ import annotations

from datetime import timedelta

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from store.accounts import audit
from store.accounts.models import User
from store.accounts.publishers import require_role
from store.catalog import listings, releases, revisions
from store.catalog.errors import BaseUnavailable, Sealed
from store.catalog.models import Listing, ListingRevision, Version
from store.catalog.revisions import EDITORS, clean_text
from store.errors import Conflict, NotFound
from store.moderation import checks
from store.moderation.errors import AlreadySubmitted, Decided, NothingToSubmit
from store.moderation.models import Submission

DUE_WITHIN = timedelta(hours=48)


def submit(
    user: User,
    listing: Listing,
    *,
    version: Version | None = None,
    revision: ListingRevision | None = None,
    note: str = "",
    visibility: str | None = None,
) -> Submission:
    """Seals what is submitted and starts its automated checks, all or nothing.

    A listing that was never approved submits its newest texts along with its version. `visibility` is what the
    listing gets on approval unless its publisher chooses otherwise before; by default it keeps what it has, and a new one
    becomes public. One submission of a listing is open at a time. Raises AlreadySubmitted, NothingToSubmit, Sealed,
    BaseUnavailable.
    """
    require_role(user, listing.publisher, *EDITORS)
    note = clean_text(note, param="note", limit=2000)
    with transaction.atomic():
        current = Listing.objects.select_for_update().get(pk=listing.pk)
        _check_listing(current)
        if revision is None and current.live_revision_id is None:
            revision = revisions.draft_again(user, current)
        _check_parts(current, version, revision)
        if version is not None:
            releases.seal(version)
        if revision is not None:
            revisions.seal(revision)
        listings.want_visibility(current, visibility)
        submission = Submission.objects.create(
            listing=current,
            version=version,
            revision=revision,
            note=note,
            submitted_by=user,
            due_at=timezone.now() + DUE_WITHIN,
        )
        checks.start(submission)
        about = {"version": version.full_name} if version else {}
        audit.record(user, "submission.submit", submission.public_id, listing=listing.public_id, **about)
    submission.refresh_from_db()
    return submission


def withdraw(user: User, submission: Submission) -> None:
    """Takes back what has not been decided. What was sealed stays sealed: a new version follows it. Raises Decided."""
    require_role(user, submission.listing.publisher, *EDITORS)
    with transaction.atomic():
        if not close(submission, Submission.State.WITHDRAWN, expected=Submission.OPEN):
            raise Decided
        if submission.version is not None:
            releases.withdraw(submission.version)
        if submission.revision is not None:
            revisions.refuse(submission.revision)
        audit.record(user, "submission.withdraw", submission.public_id)


def close(submission: Submission, state: str, *, expected: frozenset[Submission.State]) -> bool:
    """Moves it out of the queue, once; whether this call did it."""
    closed = Submission.objects.filter(pk=submission.pk, state__in=expected).update(
        state=state, closed_at=timezone.now(), claimed_by=None, claimed_at=None
    )
    if closed:
        submission.refresh_from_db(fields=["state", "closed_at", "claimed_by", "claimed_at"])
    return bool(closed)


def _check_listing(listing: Listing) -> None:
    if listing.suspended_at is not None:
        raise Conflict(_("This GPT is suspended. Nothing of it can be submitted until it is restored."))
    if Submission.objects.filter(listing=listing, state__in=Submission.OPEN).exists():
        raise AlreadySubmitted


def _check_parts(listing: Listing, version: Version | None, revision: ListingRevision | None) -> None:
    if version is None and revision is None:
        raise NothingToSubmit
    if any(part is not None and part.listing_id != listing.pk for part in (version, revision)):
        raise NotFound
    if listing.live_revision_id is None and revision is None:
        raise NothingToSubmit(_("A new GPT needs a name and a summary before it can be submitted."))
    if listing.current_version_id is None and version is None:
        raise NothingToSubmit(_("A new GPT needs a version before it can be submitted."))
    if version is not None and version.state != Version.State.DRAFT:
        raise Sealed
    if version is not None and not Version.objects.intact().filter(pk=version.pk).exists():
        raise BaseUnavailable
