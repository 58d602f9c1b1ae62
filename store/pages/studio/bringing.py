"""A version from files: weights or an adapter, brought one by one, checked together, and made a draft. Each view calls one act."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from store.catalog.revisions import EDITORS
from store.errors import DomainError
from store.jobs import folders
from store.jobs.models import ModelFolder
from store.jobs.problems import failure
from store.jobs.uploads import piece_bytes
from store.pages.studio import forms
from store.pages.studio.access import form_view, own_listing, own_publisher, person, to_dashboard
from store.pages.studio.making import create_listing, next_number


@login_required
@form_view
def new_gpt(request: HttpRequest, slug: str) -> HttpResponse:
    """A GPT from files: its listing and an empty folder, or neither."""
    owner = own_publisher(request, slug, *EDITORS)
    form = forms.NewFolderForm(request.POST or None, user=person(request))
    if request.method == "POST" and "preview" not in request.POST and form.is_valid():
        try:
            with transaction.atomic():
                folder = folders.begin(person(request), create_listing(person(request), owner, form), **form.folder())
        except DomainError as error:
            form.refuse(error)
        else:
            return _to_folder(folder)
    return render(request, "pages/studio/new_from_files.html", {"form": form, "publisher": owner}, status=422 if form.errors else 200)


@login_required
@form_view
def begin(request: HttpRequest, publisher: str, slug: str) -> HttpResponse:
    found = own_listing(request, publisher, slug, *EDITORS)
    newest = found.versions.exclude(kind="prompt").first()
    initial = {"kind": newest.kind, "base": newest.base.public_id if newest.base else ""} if newest else {}
    form = forms.FolderForm(request.POST or None, user=person(request), initial=initial)
    if request.method == "POST" and form.is_valid():
        try:
            return _to_folder(folders.begin(person(request), found, **form.folder()))
        except DomainError as error:
            form.refuse(error)
    context = {"form": form, "listing": found, "publisher": found.publisher, "begun": folders.of_listing(found)}
    return render(request, "pages/studio/bring.html", context, status=422 if form.errors else 200)


@login_required
@form_view
def folder(request: HttpRequest, publisher: str, slug: str, public_id: str) -> HttpResponse:
    """The folder's page; POST makes a version of what was checked."""
    here = _found(request, publisher, slug, public_id)
    newest = here.listing.versions.first()
    form = forms.ReleaseForm(request.POST or None, initial={"number": next_number(newest.number if newest else "")})
    if request.method == "POST" and form.is_valid():
        try:
            folders.make_version(person(request), here, **form.cleaned_data)
        except DomainError as error:
            form.refuse(error)
        else:
            messages.success(request, _("The draft is saved. Try it, then submit it for review."))
            return to_dashboard(here.listing)
    return render(request, "pages/studio/folder.html", _context(here, form=form), status=422 if form.errors else 200)


@login_required
@require_POST
def add(request: HttpRequest, publisher: str, slug: str, public_id: str) -> HttpResponse:
    """Puts files into the folder. A script brings them in pieces beforehand and gets the list of files; a form is sent back to the page."""
    here = _found(request, publisher, slug, public_id)
    sent: list[dict[str, Any]] = [{"file": file, "upload": ""} for file in request.FILES.getlist("file")] or [
        {"file": None, "upload": request.POST.get("upload", "")[:40]}
    ]
    refused = []
    for one in sent:
        try:
            folders.add(person(request), here, one)
        except DomainError as error:
            if error.status in (403, 404):
                raise
            refused.append(str(error))
    if request.headers.get("X-Requested-With") == "fetch":
        context = _context(here, refused=refused)
        return render(request, "pages/studio/folder_files.html", context, status=422 if refused else 200)
    for told in refused:
        messages.error(request, told)
    return _to_folder(here)


def _acting(act: Callable[..., object]) -> Callable[..., HttpResponse]:
    @login_required
    @require_POST
    def view(request: HttpRequest, publisher: str, slug: str, public_id: str, **path: str) -> HttpResponse:
        here = _found(request, publisher, slug, public_id)
        try:
            act(person(request), here, **path)
        except DomainError as error:
            if error.status in (403, 404):
                raise
            messages.error(request, str(error))
        return _to_folder(here) if ModelFolder.objects.filter(pk=here.pk).exists() else to_dashboard(here.listing)

    return view


take_out = _acting(lambda user, here, file: folders.take_out(user, here, file))
check = _acting(folders.check)
discard = _acting(folders.discard)


def _found(request: HttpRequest, publisher: str, slug: str, public_id: str) -> ModelFolder:
    return folders.find(person(request), own_listing(request, publisher, slug, *EDITORS), public_id)


def _to_folder(here: ModelFolder) -> HttpResponse:
    return redirect("pages:studio_folder", here.listing.publisher.slug, here.listing.slug, here.public_id)


def _context(here: ModelFolder, **more: Any) -> dict[str, Any]:
    job = here.job
    problems = (job.error_detail.get("problems") or []) if job and job.error_code == "folder_unusable" else []
    return {
        "folder": here,
        "listing": here.listing,
        "publisher": here.listing.publisher,
        "files": list(here.files.order_by("name")),
        "missing": folders.missing(here),
        "job": job,
        "problems": [problem for problem in problems if isinstance(problem, dict)],
        "failure": failure(job.error_code, job.error, job.error_detail) if job and job.state == job.State.FAILED else "",
        "percent": int(100 * job.done) if job else 0,
        "piece_bytes": piece_bytes(settings.MODEL_FILE_BYTES),
        **more,
    }
