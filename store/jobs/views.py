"""The pages of fine-tunes: the list, the way to start one, its own page with what people may do, and its live events."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.views import redirect_to_login
from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from store.accounts.models import Publisher, User
from store.accounts.publishers import require_role
from store.catalog import listings
from store.catalog.models import Listing, Version
from store.errors import DomainError, NotFound
from store.jobs import checkpoints, dispatch, evaluation_views, files, finetunes, pretraining, progress, uploads
from store.jobs.access import ACTORS, person, publisher_of
from store.jobs.estimates import estimate, estimate_from_nothing
from store.jobs.forms import SCOPES, DataForm, PretrainingForm, RefusableForm, SettingsForm, VersionForm, version_of
from store.jobs.models import Job, ModelFolder, UploadedFile
from store.jobs.standing import Standing, rows
from store.keyset import newest_first

PAGE_ROWS = 25
_ENTRY = re.compile(r"\d{1,14}-\d{1,19}")
form_view = require_http_methods(["GET", "HEAD", "POST"])


def _job(user: Any, public_id: str) -> Job:
    """The job, for those who may see it: for everybody else there is none."""
    found = Job.objects.select_related("publisher", "created_by", "after").filter(public_id=public_id).first()
    if found is None:
        raise NotFound
    dispatch.require_reader(user, found)
    return found


# ---------------------------------------------------------------- lists


@login_required
@require_GET
def show_finetunes(request: HttpRequest, slug: str) -> HttpResponse:
    owner = publisher_of(request, slug)
    page = newest_first(owner.jobs.filter(kind__in=finetunes.KINDS), before=request.GET.get("before", ""), size=PAGE_ROWS)
    context = {"publisher": owner, "rows": rows(page.rows), "before": page.before, "may_act": owner.role_of(request.user) in ACTORS}
    return render(request, "jobs/finetunes.html", context)


@login_required
@require_GET
def show_files(request: HttpRequest, slug: str) -> HttpResponse:
    owner = publisher_of(request, slug)
    page = newest_first(
        owner.files.exclude(purpose=UploadedFile.Purpose.MODEL).select_related("created_by"),
        before=request.GET.get("before", ""),
        size=PAGE_ROWS,
    )
    context = {"publisher": owner, "files": page.rows, "before": page.before, "may_act": owner.role_of(request.user) in ACTORS}
    context |= {"kept_bytes": files.kept_bytes(owner), "allowed_bytes": settings.UPLOADED_BYTES_PER_PUBLISHER}
    context["unfinished"] = uploads.unfinished(person(request), owner)
    return render(request, "jobs/files.html", context)


@login_required
@require_POST
def remove_upload(request: HttpRequest, public_id: str) -> HttpResponse:
    """Gives up an upload of one's own, also where one no longer is a member."""
    upload = uploads.find(person(request), public_id)
    uploads.cancel(upload)
    messages.success(request, _("The upload of %(name)s is removed.") % {"name": upload.name})
    if upload.publisher is None:
        return redirect("batches:list")
    return redirect("jobs:files", upload.publisher.slug) if upload.publisher.role_of(request.user) else redirect("pages:home")


# ---------------------------------------------------------------- starting one


@login_required
@form_view
def choose_data(request: HttpRequest, slug: str) -> HttpResponse:
    """First step: the base and the file. The file is stored before the next step, so that it need not be sent again."""
    owner = publisher_of(request, slug, *ACTORS)
    initial = {"base": request.GET.get("base", ""), "earlier": request.GET.get("file", ""), "scope": _scope(request)}
    begun = uploads.to_go_on_with(person(request), owner, request.GET.get("upload", ""), purpose=UploadedFile.Purpose.FINETUNE)
    sent = (request.POST or None, request.FILES or None)
    form = DataForm(*sent, user=person(request), publisher=owner, initial=initial, begun=begun)
    if request.method == "POST" and form.is_valid():
        scope = form.cleaned_data["scope"]
        try:
            if scope == "weights":
                finetunes.require_trainable_in_full(version_of(form))
            file = _file(person(request), owner, form)
        except DomainError as error:
            form.refuse(error)
        else:
            if scope == "nothing":
                return redirect("jobs:pretraining", owner.slug, file.public_id)
            settings_url = reverse("jobs:settings", args=[owner.slug, version_of(form).public_id, file.public_id])
            return redirect(f"{settings_url}?scope=weights" if scope == "weights" else settings_url)
    context = {"form": form, "publisher": owner, "steps": wizard_steps(1)}
    return render(request, "jobs/choose_data.html", context, status=422 if form.errors else 200)


def _scope(request: HttpRequest) -> str:
    """What is trained, as the address says."""
    return asked if (asked := request.GET.get("scope", "")) in SCOPES else "adapter"


def _file(user: User, owner: Publisher, form: DataForm) -> UploadedFile:
    brought = uploads.take(user, owner, form.cleaned_data, purpose=UploadedFile.Purpose.FINETUNE)
    return brought or form.earlier_files[form.cleaned_data["earlier"]]


@login_required
@form_view
def choose_settings(request: HttpRequest, slug: str, base: str, file: str) -> HttpResponse:
    """Second step: how it is trained; then it is started."""
    owner = publisher_of(request, slug, *ACTORS)
    chosen = UploadedFile.objects.filter(publisher=owner, public_id=file).first()
    version = finetunes.trainable_bases(person(request)).filter(public_id=base).first()
    if chosen is None or version is None:
        raise NotFound
    scope = "weights" if _scope(request) == "weights" else "adapter"
    initial = {"method": finetunes.suited_method(chosen)} | _used_before(request, owner)
    form = SettingsForm(request.POST or None, scope=scope, initial=initial)
    if request.method == "POST" and form.is_valid() and "estimate" not in request.POST:
        try:
            wanted = form.cleaned_data | {"scope": scope}
            prompts = wanted.pop("prompts")
            job = finetunes.start(person(request), owner, base=version, file=chosen, settings=wanted, prompts=prompts)
        except DomainError as error:
            form.refuse(error)
        else:
            return redirect("jobs:job", job.public_id)
    context = {"form": form, "publisher": owner, "base": version, "file": chosen, "scope": scope, "steps": wizard_steps(2)}
    stand = form.cleaned_data | {"scope": scope} if form.is_bound and form.is_valid() else form.initial  # as the values stand
    context["cost_micro"] = finetunes.price_micro(finetunes.most_steps(chosen, stand))
    context["estimate"] = estimate(chosen, version, stand)
    return render(request, "jobs/choose_settings.html", context, status=422 if form.errors else 200)


def _used_before(request: HttpRequest, owner: Publisher) -> dict[str, Any]:
    """The settings of the run that “use again” names."""
    found = owner.jobs.filter(kind__in=finetunes.KINDS, public_id=request.GET.get("like", "")).first()
    if found is None:
        return {}
    beside = {"size": found.params.get("size"), "vocabulary": found.params.get("shape", {}).get("vocabulary")}
    return (
        found.params["settings"]
        | {name: value for name, value in beside.items() if value}
        | {"prompts": "\n".join(found.params.get("prompts", []))}
    )


@login_required
@form_view
def choose_size(request: HttpRequest, slug: str, file: str) -> HttpResponse:
    """Second step of a model from nothing: how large it is and how it is trained; then it is started."""
    owner = publisher_of(request, slug, *ACTORS)
    chosen = UploadedFile.objects.filter(publisher=owner, public_id=file).first()
    if chosen is None:
        raise NotFound
    form = PretrainingForm(request.POST or None, initial=_used_before(request, owner))
    if request.method == "POST" and form.is_valid() and "estimate" not in request.POST:
        try:
            wanted = dict(form.cleaned_data)
            prompts = wanted.pop("prompts")
            job = pretraining.start(person(request), owner, file=chosen, settings=wanted, prompts=prompts)
        except DomainError as error:
            form.refuse(error)
        else:
            return redirect("jobs:job", job.public_id)
    stand = form.cleaned_data if form.is_bound and form.is_valid() else form.initial
    context = {"form": form, "publisher": owner, "file": chosen, "steps": wizard_steps(2)}
    context["cost_micro"] = finetunes.price_micro(finetunes.most_steps(chosen, {**stand, "method": "text"}))
    context["estimate"] = estimate_from_nothing(chosen, stand)
    return render(request, "jobs/choose_size.html", context, status=422 if form.errors else 200)


def wizard_steps(current: int) -> list[dict[str, Any]]:
    names = [_("Base and data"), _("Settings"), _("Training"), _("Draft version")]
    return [
        {"name": name, "note": "", "state": "done" if number < current else "current" if number == current else ""}
        for number, name in enumerate(names, 1)
    ]


# ---------------------------------------------------------------- its page


@require_GET
def show_job(request: HttpRequest, public_id: str) -> HttpResponse:
    try:
        job = _job(request.user, public_id)
    except NotFound:
        if request.user.is_authenticated:
            raise
        return redirect_to_login(request.get_full_path())  # who signs in may well see it
    if job.kind == Job.Kind.VALIDATION and (follower := job.followers.first()) is not None:
        return redirect("jobs:job", follower.public_id)
    return _page(request, job)


def _page(request: HttpRequest, job: Job, form: RefusableForm | None = None) -> HttpResponse:
    if job.kind == Job.Kind.EVALUATION and job.publisher is not None:
        return evaluation_views.page(request, job, job.publisher)
    if job.kind == Job.Kind.IMPORT:
        return _to_folder(job)
    if job.kind not in finetunes.KINDS or job.publisher is None:
        raise NotFound
    standing = Standing(job)
    may_act = job.publisher.role_of(request.user) in ACTORS
    if form is None and may_act and job.state == Job.State.SUCCEEDED:
        points = checkpoints.publishable(standing.events)
        form = VersionForm(publisher=job.publisher, points=points, result=job.result.get("best_step"), from_nothing=not job.subject)
    context = {"job": job, "publisher": job.publisher, "standing": standing, "may_act": may_act, "form": form}
    context["is_insider"] = dispatch.is_insider(request.user, job)
    context["file"] = UploadedFile.objects.filter(publisher=job.publisher, sha256=job.params.get("file", "")).first()
    context["hopeless"] = job.error_code in dispatch.HOPELESS
    return render(request, "jobs/job.html", context, status=422 if form is not None and form.errors else 200)


def _to_folder(job: Job) -> HttpResponse:
    """Where the files that it checks are shown, or the GPT when a version was made of them."""
    folder = ModelFolder.objects.filter(public_id=job.subject).select_related("listing__publisher").first()
    version = Version.objects.filter(made_by=job.public_id).select_related("listing__publisher").first()
    if folder is not None:
        return redirect("pages:studio_folder", folder.listing.publisher.slug, folder.listing.slug, folder.public_id)
    if version is not None:
        return redirect("pages:studio_listing", version.listing.publisher.slug, version.listing.slug)
    raise NotFound


def _acting(act: Callable[[User, Job], None]) -> Callable[..., HttpResponse]:
    @login_required
    @require_POST
    def view(request: HttpRequest, public_id: str) -> HttpResponse:
        job = _job(request.user, public_id)
        try:
            act(person(request), job)
        except DomainError as error:
            if error.status in (403, 404):
                raise
            messages.error(request, str(error))
        return redirect("jobs:job", job.public_id)

    return view


pause = _acting(dispatch.pause)
resume = _acting(dispatch.resume)
cancel = _acting(dispatch.cancel)
retry = _acting(dispatch.retry)


@login_required
@require_POST
def make_version(request: HttpRequest, public_id: str) -> HttpResponse:
    job = _job(request.user, public_id)
    if job.publisher is None:
        raise NotFound
    require_role(request.user, job.publisher, *ACTORS)
    form = VersionForm(request.POST, publisher=job.publisher, points=checkpoints.recorded(job), from_nothing=not job.subject)
    if form.is_valid():
        try:
            version = _make_version(person(request), job, form)
        except DomainError as error:
            form.refuse(error)
        else:
            messages.success(request, _("The draft is saved. Try it, then submit it for review."))
            return redirect("pages:studio_listing", version.listing.publisher.slug, version.listing.slug)
    return _page(request, job, form)


@transaction.atomic
def _make_version(user: User, job: Job, form: VersionForm) -> Version:
    values = form.cleaned_data
    listing = form.listings.get(values["listing"]) or _new_listing(user, job, values)
    chosen = {name: values[name] for name in ("number", "change_log")}
    return finetunes.make_version(user, job, listing=listing, step=values.get("step"), **chosen)


def _new_listing(user: User, job: Job, values: dict[str, Any]) -> Listing:
    """A GPT for what was trained, with the licence and languages of its base: it is a work derived from it.

    What was made from nothing has those that its publisher names, and goes on with texts.
    """
    assert job.publisher is not None
    texts = {"en": {"name": values["name"], "summary": values["summary"], "card": ""}}
    if not job.subject:
        chosen = {"use_cases": ["write"], "licence": values["licence"], "languages": values["languages"]}
        return listings.create_listing(user, job.publisher, slug=values["slug"], texts=texts, **chosen)
    base = Version.objects.select_related("listing").get(public_id=job.subject).listing
    use_cases = list(base.use_cases.values_list("slug", flat=True))
    chosen = {"use_cases": use_cases, "languages": base.languages}
    chosen |= {name: getattr(base, name) for name in ("licence", "licence_name", "licence_url")}
    return listings.create_listing(user, job.publisher, slug=values["slug"], texts=texts, **chosen)


# ---------------------------------------------------------------- live


async def events(request: HttpRequest, public_id: str) -> HttpResponseBase:
    """Server-sent events of a job, numbered as in Valkey; a reader that comes back goes on where it was."""
    if request.method not in ("GET", "HEAD"):
        return HttpResponse(status=405, headers={"Allow": "GET, HEAD"})
    job = await sync_to_async(_begin)(request, public_id)
    after = request.headers.get("last-event-id") or request.GET.get("after", "")
    response = StreamingHttpResponse(
        _relay(job, after if _ENTRY.fullmatch(after) else "0"), content_type="text/event-stream; charset=utf-8"
    )
    response["Cache-Control"] = "no-cache, no-store, private"
    response["X-Accel-Buffering"] = "no"
    return response


def _begin(request: HttpRequest, public_id: str) -> str:
    """Checks who asks and gives the connection back: the stream may live for hours."""
    try:
        return _job(request.user, public_id).public_id
    finally:
        if not connection.in_atomic_block:
            connection.close()


async def _relay(job: str, after: str) -> AsyncIterator[bytes]:
    yield b"retry: 2000\n\n"
    async for entry, event in progress.follow(job, after=after):
        if not entry:
            yield b": still waiting\n\n"
            continue
        said = {name: event[name] for name in ("stage", "done", "step", "steps", "number", "kind") if event.get(name) is not None}
        yield f"id: {entry}\nevent: {event['type']}\ndata: {json.dumps(said)}\n\n".encode()
    yield b"event: ended\ndata: {}\n\n"
