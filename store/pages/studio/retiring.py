"""What becomes of a version after its release: deprecated, withdrawn, or neither again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.translation import gettext as _

from store.catalog import publishing
from store.catalog.models import Version
from store.catalog.revisions import EDITORS
from store.errors import DomainError, NotFound
from store.generation.models import Request
from store.pages.studio import forms
from store.pages.studio.access import form_view, own_listing, person, to_dashboard, version_of

USED_WITHIN = timedelta(days=30)
WITH_NOTICE: dict[str, Callable[..., None]] = {"deprecate": publishing.deprecate, "yank": publishing.yank}
UNDOING: dict[str, Callable[..., None]] = {"recommend": publishing.recommend_again, "bring_back": publishing.bring_back}


@login_required
@form_view
def retire(request: HttpRequest, publisher: str, slug: str, number: str) -> HttpResponse:
    """Only of what was released; `act` names what to do."""
    found = own_listing(request, publisher, slug, *EDITORS)
    version = version_of(found, number)
    if version.state != Version.State.RELEASED and not version.is_withdrawn:
        raise NotFound
    if request.POST.get("act") in UNDOING:
        UNDOING[request.POST["act"]](person(request), version)
        messages.success(request, _("Version %(number)s is a released one like any other again.") % {"number": number})
        return to_dashboard(found)
    form = forms.RetirementForm(request.POST or None, initial={"act": "deprecate", "notice": version.notice})
    if request.method == "POST" and form.is_valid():
        try:
            WITH_NOTICE[form.cleaned_data["act"]](person(request), version, notice=form.cleaned_data["notice"])
        except DomainError as error:
            form.refuse(error)
        else:
            messages.success(request, _("Saved. Who uses version %(number)s is told so.") % {"number": number})
            return to_dashboard(found)
    context = {"form": form, "listing": found, "publisher": found.publisher, "version": version, "used": _used(version)}
    return render(request, "pages/studio/retire.html", context, status=422 if form.errors else 200)


def _used(version: Version) -> dict[str, Any]:
    """How much of the last 30 days' use would notice: {"requests", "people"}, people with an account only."""
    recent = Request.objects.filter(version=version, created_at__gt=timezone.now() - USED_WITHIN)
    return recent.order_by().aggregate(requests=Count("pk"), people=Count("user", distinct=True))
