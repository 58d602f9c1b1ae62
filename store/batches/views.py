"""The pages of a person's batches: the list, a new one, and one with its progress, counts, cost and results."""

from __future__ import annotations

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.views import redirect_to_login
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.utils.http import content_disposition_header
from django.utils.translation import gettext
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from store.accounts.models import User
from store.api.openai.files import content_of
from store.batches import ending, starting
from store.batches.forms import BatchForm
from store.batches.models import Batch
from store.catalog.models import Listing
from store.errors import DomainError, NotFound
from store.jobs import uploads
from store.jobs.models import UploadedFile
from store.keyset import newest_first

PAGE_ROWS = 25
FILES = {"results": "output_file", "errors": "error_file"}
BADGES = {  # class, icon
    Batch.State.VALIDATING: ("", "clock"),
    Batch.State.IN_PROGRESS: ("accent", ""),
    Batch.State.FINALIZING: ("accent", ""),
    Batch.State.CANCELLING: ("", "x"),
    Batch.State.COMPLETED: ("good", "check"),
    Batch.State.FAILED: ("bad", "x"),
    Batch.State.EXPIRED: ("warn", "clock"),
    Batch.State.CANCELLED: ("", "x"),
}


def _person(request: HttpRequest) -> User:
    assert isinstance(request.user, User)  # every page here asks for a signed-in person
    return request.user


def _batch(user: User, public_id: str) -> Batch:
    """The person's own: for everybody else there is none."""
    rows = Batch.objects.select_related("user", "output_file", "error_file", "version__listing__publisher")
    found = rows.filter(user=user, public_id=public_id).first()
    if found is None:
        raise NotFound
    return found


@login_required
@require_GET
def show_batches(request: HttpRequest) -> HttpResponse:
    page = newest_first(_person(request).batches.all(), before=request.GET.get("before", ""), size=PAGE_ROWS)
    rows = [{"batch": batch, "badge": BADGES[Batch.State(batch.state)]} for batch in page.rows]
    context = {"rows": rows, "before": page.before, "unfinished": uploads.unfinished(_person(request), None)}
    return render(request, "batches/list.html", context)


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def new(request: HttpRequest) -> HttpResponse:
    begun = uploads.to_go_on_with(_person(request), None, request.GET.get("upload", ""), purpose=UploadedFile.Purpose.BATCH)
    form = BatchForm(request.POST or None, request.FILES or None, user=_person(request), begun=begun)
    if request.method == "POST" and form.is_valid():
        try:
            file = uploads.take(_person(request), None, form.cleaned_data, purpose=UploadedFile.Purpose.BATCH)
            assert file is not None  # the form requires one
            batch = starting.start(_person(request), file.public_id)
        except DomainError as error:
            form.refuse(error)
        else:
            return redirect("batches:batch", batch.public_id)
    example = Listing.objects.listed().order_by("-request_count").select_related("publisher").first()
    context = {"form": form, "model": example.full_name if example else "publisher/name", "lines": settings.MAX_BATCH_LINES}
    return render(request, "batches/new.html", context, status=422 if form.errors else 200)


@login_required
@require_GET
def show_batch(request: HttpRequest, public_id: str) -> HttpResponse:
    batch = _batch(_person(request), public_id)
    wrong = [gettext(error["message"]) for error in batch.errors]
    context = {"batch": batch, "badge": BADGES[Batch.State(batch.state)], "wrong": wrong}
    context["may_cancel"] = batch.state in (Batch.State.VALIDATING, Batch.State.IN_PROGRESS)
    return render(request, "batches/batch.html", context)


@login_required
@require_POST
def cancel(request: HttpRequest, public_id: str) -> HttpResponse:
    batch = _batch(_person(request), public_id)
    try:
        ending.cancel(_person(request), batch)
    except DomainError as error:
        messages.error(request, str(error))
    return redirect("batches:batch", batch.public_id)


async def download(request: HttpRequest, public_id: str, which: str) -> HttpResponseBase:
    if request.method != "GET":
        return HttpResponse(status=405, headers={"Allow": "GET"})
    file = await sync_to_async(_file)(request, public_id, which)
    if file is None:
        return redirect_to_login(request.get_full_path())
    response = await content_of(file)
    response["content-disposition"] = content_disposition_header(True, file.name) or "attachment"
    return response


def _file(request: HttpRequest, public_id: str, which: str) -> UploadedFile | None:
    """None for who has not signed in. The connection is given back before the first byte."""
    try:
        if not isinstance(request.user, User):
            return None
        file = getattr(_batch(request.user, public_id), FILES[which]) if which in FILES else None
        if file is None:
            raise NotFound
        return file
    finally:
        if not connection.in_atomic_block:
            connection.close()
