"""Where an evaluation stands, for its page: suite by suite while it runs, then every number with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from store.catalog.models import Version
from store.jobs import problems, progress
from store.jobs.models import Job, JobSegment
from store.jobs.standing import BADGES, HAPPENED, TIMELINE_ROWS, Happened, State
from store.jobs.suites import METRICS, OWN, Line, line_of, measurement_name, suite_label

STAGES: dict[str, str | Promise] = {
    "fetching": _("fetching files"),
    "reading": _("reading the suite"),
    "loading": _("loading the base"),
    "measuring": _("measuring"),
}


@dataclass(frozen=True)
class Progress:
    """One suite while the job runs."""

    label: str | Promise
    state: str  # done | current | nothing
    of_base: bool  # of what is current: the base
    value: float | None  # of its first metric
    metric: str | Promise


@dataclass(frozen=True)
class Measured:
    """One suite that was measured."""

    label: str | Promise
    lines: list[Line]
    samples: list[Mapping[str, Any]]


class Evaluated:
    """Everything an evaluation's page says, read once."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.segments: list[JobSegment] = list(job.segments.order_by("number"))
        self.last_entry, self._live = ("0", []) if job.has_ended else progress.recent(job.public_id)
        lineage = ("listing__publisher", "base__listing__publisher")
        self.version = Version.objects.filter(public_id=job.subject).select_related(*lineage).first()

    @property
    def badge(self) -> tuple[str, str]:
        return BADGES[State(self.job.state)]

    @cached_property
    def _said(self) -> Mapping[str, Any]:
        return next((said for said in reversed(self._live) if said.get("type") == "progress"), {})

    @property
    def stage(self) -> str | Promise:
        return STAGES.get(str(self._said.get("stage", "")), "")

    @property
    def percent(self) -> int:
        if self.job.state == State.SUCCEEDED:
            return 100
        live = self._said.get("done") if self._said.get("stage") == "measuring" else None
        return int(100 * max(self.job.done, live or 0.0))

    @property
    def tens(self) -> int:
        """The percentage in steps of ten, for those who hear it."""
        return self.percent // 10 * 10

    @property
    def left_s(self) -> float | None:
        """Seconds left at the pace of the suites done."""
        if self.job.state != State.RUNNING or not 0 < self.job.done < 1:
            return None
        seconds = sum(float(event.get("seconds") or 0) for segment in self.segments for event in segment.events)
        return seconds * (1 - self.job.done) / self.job.done or None

    @cached_property
    def suites(self) -> list[Progress]:
        """All that were chosen, in their order, with the version's number where it is known."""
        done = {event["suite"]: event for segment in self.segments for event in segment.events if event.get("of") == "own"}
        names = [*self.job.params.get("suites", []), *([OWN] if self.job.params.get("file") else [])]
        return [self._progress(name, done.get(name)) for name in names]

    def _progress(self, name: str, event: Mapping[str, Any] | None) -> Progress:
        if event is not None:
            metric, value = next(iter((event.get("values") or {}).items()), ("", None))
            return Progress(suite_label(name), "done", False, value, METRICS.get(metric, metric))
        current = self.job.state == State.RUNNING and self._said.get("suite") == name
        return Progress(suite_label(name), "current" if current else "", current and self._said.get("of") == "beside", None, "")

    @cached_property
    def results(self) -> list[Measured]:
        return [
            Measured(
                suite_label(row["suite"]),
                [line_of(measurement_name(row["suite"], metric["name"], row["sha256"]), metric) for metric in row["metrics"]],
                row.get("samples") or [],
            )
            for row in self.job.result.get("results") or []
        ]

    @property
    def lines(self) -> list[Line]:
        return [line for measured in self.results for line in measured.lines]

    @property
    def method(self) -> Mapping[str, Any]:
        return self.job.result.get("method") or {}

    @property
    def failure(self) -> str:
        if self.job.state != State.FAILED:
            return ""
        return problems.failure(self.job.error_code, self.job.error, self.job.error_detail)

    @property
    def problems(self) -> list[problems.Shown]:
        return [problems.shown(problem) for problem in self.job.error_detail.get("problems") or []]

    @property
    def timeline(self) -> list[Happened]:
        rows = self.job.events.order_by("-id")[:TIMELINE_ROWS]
        return [Happened(HAPPENED.get(row.kind, row.kind), row.created_at, str(row.detail.get("worker", ""))) for row in rows]


def rows(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """Evaluations for a list, with their versions by name, in a constant number of queries."""
    named = Version.objects.filter(public_id__in={job.subject for job in jobs}).select_related("listing__publisher")
    versions = {version.public_id: version for version in named}
    found = []
    for job in jobs:
        css, icon = BADGES[State(job.state)]
        names = [suite_label(name) for name in [*job.params.get("suites", []), *([OWN] if job.params.get("file") else [])]]
        row = {"job": job, "version": versions.get(job.subject), "css": css, "icon": icon, "percent": int(100 * job.done)}
        found.append(row | {"suites": names})
    return found
