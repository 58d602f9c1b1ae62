"""The inbox."""

from __future__ import annotations

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import get_language
from django.views.decorators.http import require_GET, require_POST

from store.accounts.models import User
from store.keyset import newest_first
from store.notifications import messages
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
