"""The pages of evaluations: the list, the way to start one, and its own page."""

from __future__ import annotations

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_http_methods

from store.accounts.models import Publisher, User
from store.catalog.models import Version
from store.errors import DomainError, NotFound
from store.jobs import dispatch, evaluated, evaluations, uploads
from store.jobs.access import ACTORS, person, publisher_of
from store.jobs.evaluated import Evaluated
from store.jobs.forms import EvaluationForm
from store.jobs.models import Job, Upload, UploadedFile
from store.keyset import newest_first

PAGE_ROWS = 25
OFFERED_VERSIONS = 50  # the newest


@login_required
@require_GET
def show_evaluations(request: HttpRequest, slug: str) -> HttpResponse:
    """With `upload`, an unfinished suite of one's own, also the versions that it can go on to measure."""
    owner = publisher_of(request, slug)
    page = newest_first(owner.jobs.filter(kind=Job.Kind.EVALUATION), before=request.GET.get("before", ""), size=PAGE_ROWS)
    context = {"publisher": owner, "rows": evaluated.rows(page.rows), "before": page.before}
    if (begun := _begun(request, owner)) is not None and owner.role_of(request.user) in ACTORS:
        context |= {"begun": begun, "measurable": evaluations.measurable(owner)[:OFFERED_VERSIONS]}
    return render(request, "jobs/evaluations.html", context)


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def choose_suites(request: HttpRequest, slug: str, version: str) -> HttpResponse:
    """What the version shall be measured on; then it is started."""
    owner = publisher_of(request, slug, *ACTORS)
    lineage = ("listing__publisher", "base__listing__publisher", "base__base__listing__publisher")
    found = Version.objects.select_related(*lineage).filter(public_id=version, listing__publisher=owner).first()
    if found is None:
        raise NotFound
    posted = request.method == "POST"  # perhaps with nothing chosen
    sent = (request.POST, request.FILES) if posted else (None, None)
    form = EvaluationForm(*sent, user=person(request), publisher=owner, version=found, begun=_begun(request, owner))
    if posted and form.is_valid():
        try:
            file, chosen = _file(person(request), owner, form), form.cleaned_data
            job = evaluations.start(person(request), found, suites=chosen["suites"], file=file, limit=chosen["limit"])
        except DomainError as error:
            if error.status in (403, 404):
                raise
            form.refuse(error)
        else:
            return redirect("jobs:job", job.public_id)
    context = {"form": form, "publisher": owner, "version": found}
    if evaluations.asks_a_price(person(request), found):
        context["limit_of_priced"] = settings.EVALUATIONS_OF_PRICED_PER_DAY
    return render(request, "jobs/choose_suites.html", context, status=422 if form.errors else 200)


def _begun(request: HttpRequest, owner: Publisher) -> Upload | None:
    """The upload to go on with that the address names."""
    return uploads.to_go_on_with(person(request), owner, request.GET.get("upload", ""), purpose=UploadedFile.Purpose.EVALUATION)


def _file(user: User, owner: Publisher, form: EvaluationForm) -> UploadedFile | None:
    if brought := form.cleaned_data["file"] or form.uploaded:
        evaluations.require_suite(brought.name or "")
    kept = uploads.take(user, owner, form.cleaned_data, purpose=UploadedFile.Purpose.EVALUATION)
    return kept or form.earlier_files.get(form.cleaned_data["earlier"])


def page(request: HttpRequest, job: Job, publisher: Publisher) -> HttpResponse:
    """The page of one evaluation; who may see it was asked before."""
    context = {"job": job, "publisher": publisher, "standing": Evaluated(job), "may_act": publisher.role_of(request.user) in ACTORS}
    context["hopeless"] = job.error_code in dispatch.HOPELESS
    return render(request, "jobs/evaluation.html", context)
