"""The pages of the reviewers, and the page on which a publisher reads what was decided."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from store.accounts.models import User
from store.catalog.models import Listing, Version
from store.errors import DomainError, NotFound
from store.keyset import newest_first
from store.moderation import changes, checks, decisions, findings, queue, reasons, submissions
from store.moderation.forms import DecisionForm, ReasonForm
from store.moderation.models import Submission
from store.moderation.reviewers import require_reviewer

TABS = ("waiting", "checking", "decided", "suspended")


def reviewer_of(request: HttpRequest) -> User:
    require_reviewer(request.user)
    assert isinstance(request.user, User)
    return request.user


def find_submission(public_id: str) -> Submission:
    found = queue.submissions().filter(public_id=public_id).first()
    if found is None:
        raise NotFound
    return found


@login_required
@require_GET
def show_queue(request: HttpRequest) -> HttpResponse:
    reviewer_of(request)
    tab = request.GET.get("show", "waiting")
    tab = tab if tab in TABS else "waiting"
    context: dict[str, Any] = {"tab": tab, "counts": queue.counts()}
    if tab in ("waiting", "checking"):
        rows = (queue.waiting if tab == "waiting" else queue.checking)(after=request.GET.get("after", ""))
        context["entries"] = [queue.entry(submission) for submission in rows[: queue.PAGE_ROWS]]
        context["after"] = rows[queue.PAGE_ROWS - 1].public_id if len(rows) > queue.PAGE_ROWS else ""
    else:
        found = queue.decisions() if tab == "decided" else queue.suspensions()
        page = newest_first(found, before=request.GET.get("before", ""), size=queue.PAGE_ROWS)
        context |= {"decisions": page.rows, "before": page.before}
    return render(request, "moderation/queue.html", context)


@login_required
@require_GET
def show_submission(request: HttpRequest, public_id: str) -> HttpResponse:
    reviewer = reviewer_of(request)
    return _submission_page(request, reviewer, find_submission(public_id), DecisionForm())


@login_required
@require_POST
def claim(request: HttpRequest, public_id: str) -> HttpResponse:
    decisions.claim(reviewer_of(request), find_submission(public_id))
    return redirect("moderation:submission", public_id)


@login_required
@require_POST
def release(request: HttpRequest, public_id: str) -> HttpResponse:
    decisions.release(reviewer_of(request), find_submission(public_id))
    return redirect("moderation:submission", public_id)


@login_required
@require_POST
def run_check_again(request: HttpRequest, public_id: str, name: str) -> HttpResponse:
    reviewer = reviewer_of(request)
    check = find_submission(public_id).checks.filter(name=name).first()
    if check is None:
        raise NotFound
    checks.run_again(reviewer, check)
    messages.success(request, _("The check is running again."))
    return redirect("moderation:submission", public_id)


@login_required
@require_POST
def decide(request: HttpRequest, public_id: str) -> HttpResponse:
    """Writes the decision and opens the next submission."""
    reviewer = reviewer_of(request)
    submission = find_submission(public_id)
    form = DecisionForm(request.POST)
    if form.is_valid() and _decided(form, reviewer, submission):
        messages.success(request, _("The decision is written and the publisher is told."))
        upcoming = queue.next_for(reviewer.pk, after=submission)
        return redirect("moderation:submission", upcoming.public_id) if upcoming else redirect("moderation:queue")
    return _submission_page(request, reviewer, submission, form, status=400)


@login_required
@require_GET
def show_listing(request: HttpRequest, public_id: str) -> HttpResponse:
    """What was submitted of a listing and what was decided, for its publisher's members and for reviewers."""
    return _listing_page(request, _listing(request, public_id), ReasonForm())


@login_required
@require_POST
def withdraw(request: HttpRequest, public_id: str) -> HttpResponse:
    submission = find_submission(public_id)
    submissions.withdraw(request.user, submission)  # type: ignore[arg-type]
    messages.success(request, _("The submission is withdrawn."))
    return redirect("moderation:listing", submission.listing.public_id)


@login_required
@require_POST
def suspend(request: HttpRequest, public_id: str) -> HttpResponse:
    """Of a version or of a whole listing, as the public id says."""
    return _stop_or_restore(request, public_id, suspends=True)


@login_required
@require_POST
def restore(request: HttpRequest, public_id: str) -> HttpResponse:
    return _stop_or_restore(request, public_id, suspends=False)


def _decided(form: DecisionForm, reviewer: User, submission: Submission) -> bool:
    """Whether the decision took effect; what a field is missing is written into the form."""
    given = form.cleaned_data
    reason = reasons.compose(given["canned"], given["note"], publisher=submission.listing.publisher)
    act = {"approve": decisions.approve, "request_changes": decisions.request_changes, "reject": decisions.reject}[given["action"]]
    try:
        act(reviewer, submission, reason=reason)
    except DomainError as error:
        if error.param != "reason":
            raise
        form.add_error("note", str(error))
        return False
    return True


def _submission_page(
    request: HttpRequest, reviewer: User, submission: Submission, form: DecisionForm, *, status: int = 200
) -> HttpResponse:
    version = submission.version
    before = changes.approved_before(submission)
    belongs = submission.listing.publisher.role_of(reviewer) is not None
    held = submission.claim_ends_at is not None and submission.claimed_by_id != reviewer.pk
    context = {
        "entry": queue.entry(submission),
        "submission": submission,
        "listing": submission.listing,
        "version": version,
        "before": before,
        "checks": findings.shown(submission.checks.all()),
        "check_counts": findings.counts(submission.checks.all()),
        "diffs": changes.text_diffs(submission, before),
        "config": changes.config_rows(version, before) if version else [],
        "metrics": changes.metric_rows(version, before) if version else [],
        "decisions": queue.decisions().filter(listing=submission.listing)[:20],
        "form": form,
        "is_own": belongs,
        "is_held": held,
        "may_decide": submission.state == Submission.State.QUEUED and not belongs and not held,
        "next": queue.next_for(reviewer.pk, after=submission),
        "can_try": version is not None and Version.objects.usable_by(reviewer).filter(pk=version.pk).exists(),
    }
    return render(request, "moderation/submission.html", context, status=status)


def _listing(request: HttpRequest, public_id: str) -> Listing:
    listing = Listing.objects.select_related("publisher", "current_version").filter(public_id=public_id).first()
    user = request.user
    if listing is None or not isinstance(user, User) or not (user.is_reviewer or listing.publisher.role_of(user)):
        raise NotFound
    return listing


def _listing_page(request: HttpRequest, listing: Listing, form: ReasonForm, *, failed: str = "", status: int = 200) -> HttpResponse:
    assert isinstance(request.user, User)
    role = listing.publisher.role_of(request.user)
    sent = queue.submissions().filter(listing=listing).order_by("-pk")[:20]
    context = {
        "listing": listing,
        "submissions": [{"submission": one, "checks": findings.shown(one.checks.all())} for one in sent],
        "decisions": queue.decisions().filter(listing=listing)[:50],
        "versions": listing.versions.filter(state__in=[Version.State.RELEASED, Version.State.SUSPENDED]),
        "may_withdraw": role in ("owner", "maintainer"),
        "is_reviewer": request.user.is_reviewer,
        "may_suspend": request.user.is_reviewer and role is None,
        "form": form,
        "failed": failed,
    }
    return render(request, "moderation/listing.html", context, status=status)


def _stop_or_restore(request: HttpRequest, public_id: str, *, suspends: bool) -> HttpResponse:
    reviewer = reviewer_of(request)
    version = Version.objects.select_related("listing__publisher").filter(public_id=public_id).first()
    listing = version.listing if version else Listing.objects.select_related("publisher").filter(public_id=public_id).first()
    if listing is None:
        raise NotFound
    form = ReasonForm(request.POST)
    if not form.is_valid():
        return _listing_page(request, listing, form, failed=public_id, status=400)
    reason = form.cleaned_data["reason"]
    if version is not None:
        (decisions.suspend if suspends else decisions.restore)(reviewer, version, reason=reason)
    else:
        (decisions.suspend_listing if suspends else decisions.restore_listing)(reviewer, listing, reason=reason)
    messages.success(request, _("It is suspended; nobody can use it.") if suspends else _("It is restored and can be used again."))
    return redirect("moderation:listing", listing.public_id)
