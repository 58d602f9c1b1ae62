"""The acts on a GPT that is there: terms, visibility, the current version, and review. Each view calls one act."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from store.accounts.models import AuditEntry
from store.catalog import editing, publishing
from store.catalog.editing import EditedMeanwhile
from store.catalog.models import Listing
from store.catalog.revisions import EDITORS
from store.errors import DomainError, NotFound
from store.moderation import submissions
from store.moderation.models import Submission
from store.pages.studio import forms
from store.pages.studio.access import own_listing, person, to_dashboard, version_of
from store.pages.studio.overview import dashboard


@login_required
@require_POST
def set_prices(request: HttpRequest, publisher: str, slug: str) -> HttpResponse:
    """Who saves after somebody else is shown both and saves again."""
    found = own_listing(request, publisher, slug, *EDITORS)
    form, status = forms.EditedPricesForm(request.POST), 422
    shown: dict[str, Any] = {}
    if form.is_valid():
        try:
            publishing.set_prices(person(request), found, **form.prices(), seen=form.cleaned_data["seen"] or None)
        except EditedMeanwhile as error:
            merged = forms.as_prices(error.merge.values) | {"seen": editing.fingerprints(error.merge.theirs)}
            form, status = forms.EditedPricesForm(initial=merged), error.status
            shown = {"prices_merge": merge_of(error, found, labels=_price_labels(form), theirs=forms.as_prices(error.merge.theirs))}
        except DomainError as error:
            form.refuse(error)
        else:
            messages.success(request, _("The prices hold for every request from now on."))
            return to_dashboard(found)
    return render(request, "pages/studio/listing.html", dashboard(request, found, prices_form=form, **shown), status=status)


def _price_labels(form: forms.EditedPricesForm) -> dict[str, tuple[Any, str]]:
    """By an act's name of a field: its label, and the form's name."""
    names = {name: forms.PricesForm.params.get(name, name) for name in forms.PRICES}
    return {name: (form.fields[field].label, field) for name, field in names.items()}


@login_required
@require_POST
def set_permissions(request: HttpRequest, publisher: str, slug: str) -> HttpResponse:
    """Who saves after somebody else is shown both and saves again."""
    found = own_listing(request, publisher, slug, *EDITORS)
    allowed = {name: name in request.POST for name in forms.PERMISSIONS}
    try:
        publishing.set_permissions(person(request), found, **allowed, seen=request.POST.get("seen", "")[:200] or None)
    except EditedMeanwhile as error:
        labels = {"allow_finetune": (_("Others may fine-tune it"), ""), "allow_download": (_("Weights can be downloaded"), "")}
        said = {name: _("yes") if value else _("no") for name, value in error.merge.theirs.items()}
        merge = merge_of(error, found, labels={name: (label, name) for name, (label, _field) in labels.items()}, theirs=said)
        values = {"permissions": error.merge.values, "permissions_seen": editing.fingerprints(error.merge.theirs)}
        shown = dashboard(request, found, permissions_merge=merge, **values)
        return render(request, "pages/studio/listing.html", shown, status=error.status)
    messages.success(request, _("Saved."))
    return to_dashboard(found)


def merge_of(
    error: EditedMeanwhile, listing: Listing, *, labels: Mapping[str, tuple[Any, str]], theirs: Mapping[str, Any]
) -> dict[str, Any]:
    """What `pages/studio/merge.html` shows; `labels`: by an act's name of a field its label and its name in `theirs`."""
    acts = ("listing.price", "listing.permit")
    saved = AuditEntry.objects.filter(target=listing.public_id, action__in=acts).select_related("actor").first()
    clashing = [{"label": labels[name][0], "language": "", "theirs": theirs[labels[name][1]]} for name in error.merge.clashing]
    return {"error": error, "saved_by": saved.actor if saved else None, "clashing": clashing}


@login_required
@require_POST
def set_visibility(request: HttpRequest, publisher: str, slug: str) -> HttpResponse:
    found = own_listing(request, publisher, slug, *EDITORS)
    publishing.set_visibility(person(request), found, visibility=request.POST.get("visibility", ""))
    messages.success(request, _("Saved."))
    return to_dashboard(found)


@login_required
@require_POST
def make_current(request: HttpRequest, publisher: str, slug: str, number: str) -> HttpResponse:
    found = own_listing(request, publisher, slug, *EDITORS)
    publishing.make_current(person(request), found, version_of(found, number))
    messages.success(request, _("Version %(number)s is the current one now.") % {"number": number})
    return to_dashboard(found)


@login_required
@require_POST
def delete_draft(request: HttpRequest, publisher: str, slug: str, number: str) -> HttpResponse:
    found = own_listing(request, publisher, slug, *EDITORS)
    publishing.delete_draft(person(request), version_of(found, number))
    messages.success(request, _("The draft of version %(number)s is deleted.") % {"number": number})
    return to_dashboard(found)


@login_required
@require_POST
def submit(request: HttpRequest, publisher: str, slug: str) -> HttpResponse:
    """Hands in the version named by `version`, the draft texts when `texts` is set, or both."""
    found = own_listing(request, publisher, slug, *EDITORS)
    form = forms.SubmissionForm(request.POST)
    if form.is_valid():
        version = version_of(found, request.POST["version"]) if request.POST.get("version") else None
        revision = found.revisions.filter(state="draft").first() if request.POST.get("texts") else None
        try:
            submissions.submit(person(request), found, version=version, revision=revision, **form.cleaned_data)
        except DomainError as error:
            form.refuse(error)
        else:
            messages.success(request, _("Submitted. You are told here and by e-mail what a reviewer decides."))
            return to_dashboard(found)
    return render(request, "pages/studio/listing.html", dashboard(request, found, submission_form=form), status=422)


@login_required
@require_POST
def withdraw(request: HttpRequest, publisher: str, slug: str) -> HttpResponse:
    found = own_listing(request, publisher, slug, *EDITORS)
    submission = found.submissions.filter(state__in=Submission.OPEN).first()
    if submission is None:
        raise NotFound
    submissions.withdraw(person(request), submission)
    messages.success(request, _("The submission is withdrawn. Make a new version to submit again."))
    return to_dashboard(found)
