"""What reviewers should look at next, and why."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from store.catalog.models import Listing
from store.moderation.models import CLAIMED_FOR, Check, Decision, Submission

PAGE_ROWS = 50


@dataclass(frozen=True)
class Entry:
    """A submission as the queue shows it. `risk` is high when a check failed, medium when one needs a look or could not be
    run or when nothing of this publisher was ever approved, else low."""

    submission: Submission
    reasons: list[Promise | str]
    checks: dict[str, int]  # how many are in each state
    risk: str
    is_overdue: bool


def submissions() -> QuerySet[Submission]:
    """With everything an entry shows, in a constant number of queries."""
    known = Listing.objects.filter(publisher=OuterRef("listing__publisher"), published_at__isnull=False)
    related = ("listing__publisher", "listing__live_revision", "listing__current_version", "version__listing__publisher")
    return (
        Submission.objects.select_related(
            *related, "version__base__listing__publisher", "version__artifact", "revision", "claimed_by", "submitted_by"
        )
        .prefetch_related("checks", "listing__live_revision__texts", "revision__texts")
        .annotate(publisher_is_known=Exists(known))
    )


def waiting(*, after: str = "") -> list[Submission]:
    """The ones a reviewer can decide, due first: a page and one more."""
    return _page(submissions().filter(state=Submission.State.QUEUED), after)


def checking(*, after: str = "") -> list[Submission]:
    return _page(submissions().filter(state=Submission.State.CHECKING), after)


def next_for(user_pk: int, *, after: Submission | None = None) -> Submission | None:
    """The first waiting one that nobody else works on and that is not this person's own; behind `after` when there is one."""
    held = Q(claimed_by__isnull=False) & ~Q(claimed_by=user_pk) & Q(claimed_at__gt=timezone.now() - CLAIMED_FOR)
    rows = Submission.objects.filter(state=Submission.State.QUEUED).exclude(held).exclude(listing__publisher__memberships__user=user_pk)
    rows = rows.order_by("due_at", "pk")
    if after is None:
        return rows.first()
    return rows.filter(Q(due_at__gt=after.due_at) | Q(due_at=after.due_at, pk__gt=after.pk)).first() or rows.exclude(pk=after.pk).first()


def entry(submission: Submission, *, now: datetime | None = None) -> Entry:
    """`submission` comes from `submissions()`."""
    checks = Counter(check.state for check in submission.checks.all())
    return Entry(
        submission=submission,
        reasons=_reasons(submission, checks),
        checks=dict(checks),
        risk=_risk(submission, checks),
        is_overdue=submission.is_open and submission.due_at < (now or timezone.now()),
    )


def suspensions() -> QuerySet[Decision]:
    """The decisions by which what is suspended now was suspended."""
    later = Decision.objects.filter(pk__gt=OuterRef("pk"), listing=OuterRef("listing"), action=Decision.Action.SUSPEND)
    of_versions = Q(version__state="suspended") & ~Exists(later.filter(version=OuterRef("version")))
    of_listings = Q(version__isnull=True, listing__suspended_at__isnull=False) & ~Exists(later.filter(version__isnull=True))
    return decisions().filter(of_versions | of_listings, action=Decision.Action.SUSPEND)


def decisions() -> QuerySet[Decision]:
    return Decision.objects.select_related("listing__publisher", "version__listing__publisher", "decided_by", "submission")


def counts() -> dict[str, int]:
    states = Counter(Submission.objects.filter(state__in=Submission.OPEN).values_list("state", flat=True))
    return {
        "waiting": states[Submission.State.QUEUED],
        "checking": states[Submission.State.CHECKING],
        "suspended": suspensions().count(),
    }


def _reasons(submission: Submission, checks: Counter[str]) -> list[Promise | str]:
    reasons: list[Promise | str] = []
    if not submission.publisher_is_known:  # type: ignore[attr-defined]
        reasons.append(_("Nothing of this publisher was approved before"))
    if submission.listing.current_version is None:
        reasons.append(_("New GPT"))
    elif submission.version is not None:
        reasons.append(_("New version of a listed GPT"))
    if submission.revision is not None and submission.listing.live_revision is not None:
        reasons.append(_("Changed texts"))
    if submission.listing.wanted_visibility != submission.listing.visibility and submission.listing.current_version is not None:
        reasons.append(_("Changed visibility"))
    if checks[Check.State.FAILED]:
        reasons.append(_("A check failed"))
    if checks[Check.State.WARNED]:
        reasons.append(_("A check needs a look"))
    if checks[Check.State.ERROR]:
        reasons.append(_("A check could not be run"))
    return reasons


def _risk(submission: Submission, checks: Counter[str]) -> str:
    if checks[Check.State.FAILED]:
        return "high"
    known = submission.publisher_is_known  # type: ignore[attr-defined]
    return "medium" if checks[Check.State.WARNED] or checks[Check.State.ERROR] or not known else "low"


def _page(rows: QuerySet[Submission], after: str) -> list[Submission]:
    rows = rows.order_by("due_at", "pk")
    last = Submission.objects.filter(public_id=after).first() if after else None
    if last is not None:
        rows = rows.filter(Q(due_at__gt=last.due_at) | Q(due_at=last.due_at, pk__gt=last.pk))
    return list(rows[: PAGE_ROWS + 1])
