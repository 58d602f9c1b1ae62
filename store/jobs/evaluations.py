"""Evaluations: suites are put to a version and to its base, and what was measured is kept on both."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from store.accounts import audit
from store.accounts.models import Membership, Publisher, User
from store.accounts.publishers import require_role
from store.billing import prices
from store.catalog.models import Measurement, Version
from store.errors import NotFound
from store.jobs import dispatch
from store.jobs.errors import EvaluationsUsedUp, EvaluationUnderWay, FileRejected, InvalidSetting, NotEvaluable
from store.jobs.models import Job, UploadedFile
from store.jobs.suites import METRICS, OWN, SUITES, measurement_name, offered_for
from store.notifications.messages import notify
from store.notifications.models import Notification

UNDER_WAY = frozenset({Job.State.QUEUED, Job.State.RUNNING, Job.State.PAUSED})
EVALUABLE = frozenset({Version.State.DRAFT, Version.State.SEALED, Version.State.RELEASED})
MAX_LIMIT = 2000
ROLES = (Membership.Role.OWNER, Membership.Role.MAINTAINER)
OF_RESULT = ("value", "low", "high", "base_value", "difference", "difference_low", "difference_high")


@transaction.atomic
def start(user: User, version: Version, *, suites: Sequence[str], file: UploadedFile | None = None, limit: int | None = None) -> Job:
    """The evaluation job. Nothing is written when it raises.

    Raises NotFound and NotAllowed for who may not, NotEvaluable, InvalidSetting, FileRejected, EvaluationUnderWay and
    EvaluationsUsedUp.
    """
    publisher = version.listing.publisher
    require_role(user, publisher, *ROLES)
    Version.objects.select_for_update(no_key=True).filter(pk=version.pk).first()  # of two at once, one sees the other
    if version.state not in EVALUABLE or not Version.objects.usable_by(user).filter(pk=version.pk).exists():
        raise NotEvaluable
    _check(version, suites, file, limit)
    if Job.objects.filter(kind=Job.Kind.EVALUATION, subject=version.public_id, state__in=UNDER_WAY).exists():
        raise EvaluationUnderWay
    if priced := asks_a_price(user, version):
        _require_left(publisher)
    params = _parts(version) | {
        "suites": [name for name in SUITES if name in suites],
        "file": file.sha256 if file else None,
        "name": file.name if file else "",
        "limit": limit,
        "records": _records(version, file),
        **({"priced": True} if priced else {}),
    }
    job = dispatch.create(Job.Kind.EVALUATION, params=params, publisher=publisher, user=user, subject=version.public_id)
    audit.record(user, "evaluation.start", job.public_id, version=version.public_id)
    return job


def measurable(publisher: Publisher) -> QuerySet[Version]:
    """The publisher's versions that can be measured, the newest first."""
    of_publisher = Version.objects.not_taken_down().filter(listing__publisher=publisher, state__in=EVALUABLE)
    return of_publisher.select_related("listing__publisher").order_by("-pk")


def asks_a_price(user: User, version: Version) -> bool:
    """Whether this person would pay for a use of it. Measuring it costs nothing all the same, but so often a day."""
    return not prices.due(version, user).price.is_free


def begun_of_priced(publisher: Publisher) -> QuerySet[Job]:
    """The evaluations of priced GPTs that the publisher began in the last day, whatever became of them."""
    since = timezone.now() - timedelta(days=1)
    return Job.objects.filter(kind=Job.Kind.EVALUATION, publisher=publisher, created_at__gte=since, params__priced=True)


def _require_left(publisher: Publisher) -> None:
    Publisher.objects.select_for_update(no_key=True).get(pk=publisher.pk)  # of two at once, one sees the other
    limit = settings.EVALUATIONS_OF_PRICED_PER_DAY
    if begun_of_priced(publisher).count() >= limit:
        message = ngettext(
            "What it builds on asks a price, and measuring costs nothing: a publisher may begin at most %(limit)s such evaluation a day. "
            "Try again tomorrow.",
            "What it builds on asks a price, and measuring costs nothing: a publisher may begin at most %(limit)s such evaluations a day. "
            "Try again tomorrow.",
            limit,
        )
        raise EvaluationsUsedUp(message % {"limit": limit})


def _check(version: Version, suites: Sequence[str], file: UploadedFile | None, limit: int | None) -> None:
    if unknown := sorted(set(suites) - offered_for(version).keys()):
        raise InvalidSetting(_("There is no suite “%(name)s” for this version.") % {"name": unknown[0]}, param="suites")
    if not suites and file is None:
        raise InvalidSetting(_("Choose a suite, or bring one of your own."), param="suites")
    if limit is not None and not 1 <= limit <= MAX_LIMIT:
        raise InvalidSetting(_("The limit must lie between 1 and %(most)s.") % {"most": MAX_LIMIT}, param="limit")
    if file is not None:
        if file.publisher_id != version.listing.publisher_id:
            raise NotFound
        require_suite(file.name)


def require_suite(name: str) -> None:
    """Refuses by its name a file that cannot hold a suite; what is in it is for the job to say."""
    if not name.lower().endswith((".jsonl", ".json")):
        raise FileRejected(_("A suite is a file of JSON lines: named something.jsonl."), param="file")


def _parts(version: Version) -> dict[str, Any]:
    """What the numbers of a version depend on, and those of the one it stands beside: its direct base, on the same weights or,
    where it is weights itself, what they were trained from.
    """
    weights, base = version.weights(), version.base
    assert weights.artifact is not None
    beside = {"adapter": _adapter_of(base), "instructions": base.instructions} if base else None
    if beside is not None and version.stands_on is None and base is not None and base.artifact is not None:
        beside["base"] = base.artifact.digest
    own = {"adapter": _adapter_of(version), "instructions": version.instructions}
    return {"base": weights.artifact.digest, **own, "beside": beside}


def _adapter_of(version: Version) -> str | None:
    adapter = version.adapter()
    return adapter.artifact.digest if adapter and adapter.artifact else None


def _records(version: Version, file: UploadedFile | None) -> list[str]:
    """Where the base was measured before: what is in them need not be measured again."""
    if version.base is None:
        return []
    kept = version.base.measurements.values_list("method", flat=True)
    found = [method.get("record") for method in kept if isinstance(method, dict)]
    if file is not None:
        of_publisher = Job.objects.filter(kind=Job.Kind.EVALUATION, publisher=version.listing.publisher)
        same = of_publisher.filter(state=Job.State.SUCCEEDED, params__file=file.sha256)
        found += [job.result.get("beside_record") for job in same.order_by("-pk")[:1]]
    return sorted({digest for digest in found if digest})


def goes_on(_user: User, job: Job) -> None:
    """Before an evaluation is resumed or tried again. Raises NotEvaluable when the version or what it builds on was taken down."""
    if job.kind == Job.Kind.EVALUATION and not Version.objects.not_taken_down().filter(public_id=job.subject).exists():
        raise NotEvaluable


# ---------------------------------------------------------------- what came of it


def ended(job: Job) -> None:
    """Keeps what was measured and tells who asked; called in the transaction that ends the job."""
    version = Version.objects.filter(public_id=job.subject).select_related("base").first()
    if job.state == Job.State.SUCCEEDED and version is not None and job.params.get("limit") is None:
        _keep(job, version)
    if job.created_by is None or job.state == Job.State.CANCELLED:
        return
    kind = Notification.Kind.JOB_SUCCEEDED if job.state == Job.State.SUCCEEDED else Notification.Kind.JOB_FAILED
    subject = version.full_name if version is not None else job.public_id
    url = f"/studio/jobs/{job.public_id}/"
    notify([job.created_by], kind, key=f"{job.cause}:{job.attempt}:{job.state}", params={"subject": subject}, url=url)


def _keep(job: Job, version: Version) -> None:
    """A run with a limit is not kept: who may choose the items could choose the number. Nor is one of a draft that was edited since."""
    parts = _parts(version)
    if any(job.params.get(name) != value for name, value in parts.items()):
        return
    method = job.result.get("method") or {}
    _write(version, job, job.result.get("results"), method | {"record": job.result.get("record")})
    if version.base is not None and isinstance(names := job.result.get("beside"), dict):
        rows = [row for row in _rows(job.result.get("beside_results")) if row["suite"] != OWN]
        _write(version.base, job, rows, method | names | {"record": job.result.get("beside_record")}, anew=False)


def _write(version: Version, job: Job, results: Any, method: Mapping[str, Any], *, anew: bool = True) -> None:
    """`anew`: also what is known already under the same conditions."""
    known = {} if anew else {measured.name: measured.method for measured in version.measurements.all()}
    for row in _rows(results):
        of_suite = {**method, "suite": row["suite"], "suite_sha256": row["sha256"], "items": row["items"]}
        for metric in row["metrics"]:
            name = measurement_name(row["suite"], metric["name"], row["sha256"])
            if name in known and _alike(known[name], of_suite):
                continue
            defaults = {field: metric.get(field) for field in OF_RESULT} | {
                "unit": str(metric.get("unit", ""))[:20],
                "lower_is_better": bool(metric.get("lower_is_better")),
                "method": of_suite | {"items": metric.get("items", row["items"])},
                "made_by": job.public_id,
            }
            Measurement.objects.update_or_create(version=version, name=name, defaults=defaults)


def _alike(known: Mapping[str, Any], method: Mapping[str, Any]) -> bool:
    return all(known.get(name) == method.get(name) for name in ("suite_sha256", "engine", "precision", "device", "runner"))


def _rows(results: Any) -> Iterable[dict[str, Any]]:
    """What a worker says it measured, as far as it can be believed to be numbers of suites that there are."""
    for row in results if isinstance(results, list) else []:
        if not isinstance(row, dict) or (row.get("suite") not in SUITES and row.get("suite") != OWN):
            continue
        metrics = [metric for metric in row.get("metrics") or [] if isinstance(metric, dict) and _is_measured(metric)]
        yield {"suite": row["suite"], "sha256": str(row.get("sha256", ""))[:64], "items": row.get("items"), "metrics": metrics}


def _is_measured(metric: Mapping[str, Any]) -> bool:
    numbers = [metric.get(field) for field in OF_RESULT]
    finite = all(number is None or (isinstance(number, int | float) and math.isfinite(number)) for number in numbers)
    return finite and metric.get("value") is not None and metric.get("name") in METRICS
