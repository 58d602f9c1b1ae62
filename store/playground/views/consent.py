"""Where a person says whether publishers may learn from their feedback, and takes it back."""

from __future__ import annotations

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from store.accounts.models import User
from store.playground import feedback, preference_sets


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def consent(request: HttpRequest) -> HttpResponse:
    assert isinstance(request.user, User)
    if request.method != "POST":
        has_agreed = feedback.has_agreed(request.user)
        shared = feedback.shared_by(request.user) if has_agreed else 0
        context = {"has_agreed": has_agreed, "shared": shared, "least_people": settings.FEEDBACK_LEAST_PEOPLE}
        return render(request, "playground/consent.html", context)
    if request.POST.get("agree") == "yes":
        preference_sets.agree(request.user)
        messages.success(request, _("Thank you. What you judge or ask again from now on helps publishers."))
    else:
        preference_sets.withdraw(request.user)
        messages.success(request, _("Publishers no longer see your feedback, and it was taken out of their data sets."))
    return redirect("playground:consent")
