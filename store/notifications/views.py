"""The inbox, and what comes by e-mail."""

from __future__ import annotations

from django.contrib import messages as notices
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import get_language
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from store.accounts.models import User
from store.keyset import newest_first
from store.notifications import messages, preferences
from store.notifications.forms import PreferencesForm
from store.notifications.models import Notification
from store.notifications.sentences import quote, sentence


@login_required
@require_GET
def inbox(request: HttpRequest) -> HttpResponse:
    assert isinstance(request.user, User)
    page = newest_first(Notification.objects.filter(user=request.user), before=request.GET.get("before", ""))
    rows = [{"notification": row, "sentence": sentence(row), "quote": quote(row)} for row in page.rows]
    context = {"rows": rows, "before": page.before, "unread": messages.unread_count(request.user)}
    return render(request, "notifications/inbox.html", context)


@login_required
@require_POST
def open_message(request: HttpRequest, public_id: str) -> HttpResponse:
    """Marks it read and goes to what it is about."""
    assert isinstance(request.user, User)
    notification = messages.mark_read(request.user, public_id)
    return redirect(f"/{get_language()}{notification.url}" if notification.url else "notifications:inbox")


@login_required
@require_POST
def mark_read(request: HttpRequest, public_id: str) -> HttpResponse:
    assert isinstance(request.user, User)
    messages.mark_read(request.user, public_id)
    return redirect("notifications:inbox")


@login_required
@require_POST
def mark_all_read(request: HttpRequest) -> HttpResponse:
    assert isinstance(request.user, User)
    messages.mark_all_read(request.user)
    return redirect("notifications:inbox")


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def edit_preferences(request: HttpRequest) -> HttpResponse:
    assert isinstance(request.user, User)
    rhythm = "weekly" if preferences.is_weekly(request.user) else "each"
    initial = {"topics": preferences.wanted(request.user), "rhythm": rhythm}
    form = PreferencesForm(request.POST if request.method == "POST" else None, initial=initial)
    if request.method == "POST" and form.is_valid():
        preferences.choose(request.user, form.cleaned_data["topics"])
        preferences.choose_rhythm(request.user, weekly=form.cleaned_data["rhythm"] == "weekly")
        notices.success(request, _("Saved."))
        return redirect("notifications:preferences")
    return render(request, "notifications/preferences.html", {"form": form}, status=422 if form.errors else 200)


@csrf_exempt  # the token of the link is the permission, and mail programs post without a cookie (RFC 8058)
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def unsubscribe(request: HttpRequest, token: str) -> HttpResponse:
    """Asks first: programs that look at the links of an e-mail must not end what its reader wants."""
    user, topic = preferences.read_token(token)
    done = request.method == "POST"
    if done:
        preferences.stop(user, topic)
    return render(request, "notifications/unsubscribe.html", {"topic": preferences.label(topic), "done": done})
