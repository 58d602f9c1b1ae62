"""The pages of one's data: what is held, all of it as a file, and the end of the account. Both ask who it is once more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import IO

from allauth.account.decorators import reauthentication_required
from asgiref.sync import sync_to_async
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db import connection
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.http import content_disposition_header
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from store import ratelimit
from store.accounts import erasure, exporting, personal_data
from store.accounts.forms import ErasureForm
from store.accounts.models import User
from store.errors import DomainError

EXPORTS_PER_HOUR = 6
CHUNK_BYTES = 64 * 1024


def _person(request: HttpRequest) -> User:
    assert isinstance(request.user, User)  # every view here asks for a signed-in person
    return request.user


@login_required
@require_safe
def show(request: HttpRequest) -> HttpResponse:
    user = _person(request)
    context = {"due": user.erasure_due_at, "tables": len(personal_data.holdings())}
    return render(request, "accounts/privacy.html", context)


@login_required
@never_cache
@require_safe
@reauthentication_required
def export(request: HttpRequest) -> StreamingHttpResponse:
    user = _person(request)
    ratelimit.require(f"export:{user.pk}", limit=EXPORTS_PER_HOUR, per_s=3600)
    file = exporting.write(user)
    if not connection.in_atomic_block:
        connection.close()  # before the first byte: who reads slowly holds no connection
    name = f"gpt-store-{user.username}-{timezone.now():%Y-%m-%d}.zip"
    headers = {"Content-Type": "application/zip", "Content-Disposition": content_disposition_header(True, name) or "attachment"}
    return StreamingHttpResponse(_chunks(file), headers=headers)


async def _chunks(file: IO[bytes]) -> AsyncIterator[bytes]:
    try:
        while chunk := await sync_to_async(file.read)(CHUNK_BYTES):
            yield chunk
    finally:
        file.close()


@login_required
@never_cache
@reauthentication_required
def delete(request: HttpRequest) -> HttpResponse:
    user = _person(request)
    form = ErasureForm(request.POST or None, user=user)
    if request.method == "POST" and form.is_valid():
        try:
            erasure.ask(user)
        except DomainError as error:
            form.refuse(error)
        else:
            messages.success(request, _("Your account will be deleted. Until then you can keep it, here."))
            return redirect("accounts:privacy")
    kept = dict.fromkeys(holding.kept for holding in personal_data.holdings() if holding.kept)
    context = {
        "form": form,
        "in_the_way": erasure.in_the_way(user),
        "operates": user.is_staff or user.is_superuser,
        "kept": list(kept),
        "days": erasure.GRACE.days,
    }
    return render(request, "accounts/delete.html", context, status=400 if form.errors else 200)


@login_required
@require_POST
def keep(request: HttpRequest) -> HttpResponse:
    erasure.keep(_person(request))
    messages.success(request, _("Your account stays. Nothing has changed."))
    return redirect("accounts:privacy")
