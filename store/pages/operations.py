"""The page of those who run the store: who works, on what, what waits and for how long, and what failed.

Operators are staff with the right to see jobs; whoever may change them also stops them and tries them again here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import redis.exceptions
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db.models import Min
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_GET, require_POST
from kombu.exceptions import KombuError

from inference import protocol
from store.accounts.models import User
from store.catalog.models import Version
from store.errors import DomainError, NotFound
from store.generation import workers
from store.generation.models import Request
from store.jobs import dispatch
from store.jobs.models import Job
from store.jobs.standing import BADGES
from store.keyset import newest_first
from store.pages import queues

ROWS = 25
TABS = {"working": [Job.State.RUNNING], "waiting": [Job.State.QUEUED, Job.State.WAITING, Job.State.PAUSED], "failed": [Job.State.FAILED]}
OF_QUEUES: dict[str, str | Promise] = {
    "store": _("mail, clean-up, what is due"),
    protocol.EVENTS_QUEUE: _("what workers report"),
    protocol.LOAD_QUEUE: _("generations whose model no worker holds"),
    protocol.TRAINING_QUEUE: _("fine-tunes"),
    protocol.CHECKS_QUEUE: _("checks and data"),
}


@dataclass(frozen=True)
class Engine:
    """An engine as it described itself within the last seconds."""

    name: str
    worker: str
    base: Version | None  # None: its base is no version any more
    dtype: str
    running: int
    waiting: int
    used_percent: int | None  # of its key-value cache
    tokens_per_s: float | None


@dataclass(frozen=True)
class Queue:
    name: str
    holds: str | Promise
    depth: int


@dataclass(frozen=True)
class Floor:
    """The machines' side of the store."""

    generation: list[str]  # names of workers whose heart beats
    jobs: list[str]
    engines: list[Engine]
    queues: list[Queue]


def floor() -> Floor | None:
    """None when the broker does not answer."""
    try:
        alive, depths = workers.alive(), queues.depths()
    except (redis.exceptions.RedisError, KombuError, OSError):
        return None
    digests = {str(stats.get("base", "")) for stats in alive["engines"].values()}
    found = Version.objects.filter(artifact__digest__in=digests).select_related("listing__publisher", "artifact").order_by("-pk")
    bases = {version.artifact.digest: version for version in found if version.artifact is not None}
    of_bases = {
        queue: version.listing.full_name
        for digest, version in bases.items()
        for queue in (protocol.base_queue(digest), protocol.batch_queue(digest))
    }
    return Floor(
        generation=sorted(alive["generation"]),
        jobs=sorted(alive["jobs"]),
        engines=[_engine(name, stats, bases.get(str(stats.get("base", "")))) for name, stats in sorted(alive["engines"].items())],
        queues=[Queue(name, OF_QUEUES.get(name) or of_bases.get(name, ""), depth) for name, depth in depths.items()],
    )


def _engine(name: str, stats: dict[str, Any], base: Version | None) -> Engine:
    total = stats.get("blocks_total")
    return Engine(
        name=name,
        worker=str(stats.get("worker", "")),
        base=base,
        dtype=str(stats.get("dtype", "")),
        running=int(stats.get("running", 0)),
        waiting=int(stats.get("waiting", 0)),
        used_percent=round(100 * stats.get("blocks_used", 0) / total) if total else None,
        tokens_per_s=stats.get("tokens_per_s"),
    )


def counts() -> dict[str, int]:
    """Jobs in each tab; failures of the last day."""
    since = timezone.now() - timedelta(days=1)
    found = {tab: Job.objects.filter(state__in=states) for tab, states in TABS.items()}
    found["failed"] = found["failed"].filter(finished_at__gte=since)
    return {tab: jobs.count() for tab, jobs in found.items()}


def waiting_since() -> dict[str, datetime | None]:
    """Since when the longest waiting job, and the oldest generation under way, have been there."""
    queued = Job.objects.filter(state=Job.State.QUEUED).aggregate(at=Min("created_at"))["at"]
    admitted = Request.objects.filter(state=Request.State.ADMITTED, deadline_at__gte=timezone.now())
    return {"job": queued, "generation": admitted.aggregate(at=Min("created_at"))["at"]}


# ---------------------------------------------------------------- views


def _operator_of(request: HttpRequest, permission: str) -> User:
    """Raises NotFound for everybody else: the page does not exist for them."""
    user = request.user
    if not isinstance(user, User) or not user.is_staff or not user.has_perm(permission):
        raise NotFound
    return user


@login_required
@require_GET
def show(request: HttpRequest) -> HttpResponse:
    operator = _operator_of(request, "jobs.view_job")
    tab = request.GET.get("show", "")
    tab = tab if tab in TABS else "working"
    rows = Job.objects.filter(state__in=TABS[tab]).select_related("publisher", "created_by")
    page = newest_first(rows, before=request.GET.get("before", ""), size=ROWS)
    context = {
        "now": timezone.localtime(),
        "tab": tab,
        "counts": counts(),
        "since": waiting_since(),
        "floor": floor(),
        "before": page.before,
        "rows": [_row(job) for job in page.rows],
        "may_act": operator.has_perm("jobs.change_job"),
    }
    return render(request, "pages/operations.html", context)


def _row(job: Job) -> dict[str, Any]:
    css, icon = BADGES[Job.State(job.state)]
    traceback = str(job.error_detail.get("traceback", ""))
    return {"job": job, "css": css, "icon": icon, "percent": int(100 * job.done), "traceback": traceback}


def _acting(act: Callable[[User, Job], None], tab: str) -> Callable[..., HttpResponse]:
    @login_required
    @require_POST
    def view(request: HttpRequest, public_id: str) -> HttpResponse:
        operator = _operator_of(request, "jobs.change_job")
        job = Job.objects.filter(public_id=public_id).first()
        if job is None:
            raise NotFound
        try:
            act(operator, job)
        except DomainError as error:
            messages.error(request, str(error))
        else:
            messages.success(request, _("Done. The job's history says so too."))
        return redirect(f"{request.path.rsplit('jobs/', 1)[0]}?show={tab}")

    return view


cancel = _acting(dispatch.cancel, "working")
retry = _acting(dispatch.retry, "failed")
