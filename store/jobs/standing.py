"""Where a fine-tune stands, for its page: stages, progress, numbers and curve, from its rows and what is live beyond them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from store.catalog.models import Version
from store.jobs import problems, progress
from store.jobs.checkpoints import Asked, asked
from store.jobs.curves import Curve, curve
from store.jobs.findings import Contents
from store.jobs.finetunes import price_micro
from store.jobs.models import Job, JobSegment

State = Job.State
TIMELINE_ROWS = 12

BADGES = {  # class, icon
    State.WAITING: ("", "clock"),
    State.QUEUED: ("", "clock"),
    State.RUNNING: ("accent", ""),
    State.PAUSED: ("warn", "pause"),
    State.SUCCEEDED: ("good", "check"),
    State.FAILED: ("bad", "x"),
    State.CANCELLED: ("", "x"),
}

HAPPENED: dict[str, str | Promise] = {
    "waiting": _("Created, waiting for its data to be checked"),
    "queued": _("In the queue"),
    "claimed": _("Begun by a worker"),
    "pause_asked": _("Asked to pause after the segment under way"),
    "paused": _("Paused at a checkpoint"),
    "resumed": _("Resumed"),
    "cancel_asked": _("Asked to stop"),
    "cancelled": _("Cancelled"),
    "left": _("Left at a checkpoint by a worker that was stopping"),
    "retrying": _("Failed, will be tried again by itself"),
    "retried": _("Tried again"),
    "succeeded": _("Finished"),
    "failed": _("Failed"),
}

STAGES: dict[str, str | Promise] = {
    "fetching": _("fetching files"),
    "reading": _("reading the data"),
    "loading": _("loading the base"),
    "training": _("training"),
    "validating": _("measuring on held-out examples"),
    "answering": _("answering the sample prompts"),
}


@dataclass(frozen=True)
class Step:
    name: str | Promise
    note: str | Promise = ""
    state: str = ""  # done | current | nothing


@dataclass(frozen=True)
class Happened:
    what: str | Promise
    at: Any
    detail: str = ""


class Standing:
    """Everything a fine-tune's page says, read once."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.validation = job.after
        self.report: dict[str, Any] = (self.validation.result if self.validation else {}) or {}
        self.segments: list[JobSegment] = list(job.segments.order_by("number"))
        self.last_entry, self._live = ("0", []) if job.has_ended else progress.recent(job.public_id)
        self.version = Version.objects.filter(made_by=job.public_id).select_related("listing__publisher").order_by("-id").first()
        self.base = Version.objects.filter(public_id=job.subject).select_related("listing__publisher").first()

    @property
    def is_from_nothing(self) -> bool:
        return self.job.kind == Job.Kind.PRETRAINING

    # ------------------------------------------------------------ numbers

    @cached_property
    def events(self) -> list[Mapping[str, Any]]:
        """One per step: what is recorded, then what is live beyond it."""
        recorded = [event for segment in self.segments for event in segment.events]
        last = recorded[-1]["step"] if recorded else -1
        beyond: dict[int, Mapping[str, Any]] = {}
        for said in self._live:
            for event in said.get("events") or []:
                if event.get("step", -1) > last:
                    beyond[event["step"]] = event
        return [*recorded, *(beyond[step] for step in sorted(beyond))]

    @cached_property
    def _said(self) -> Mapping[str, Any]:
        """The last thing the worker said about its progress."""
        return next((said for said in reversed(self._live) if said.get("type") == "progress"), {})

    @property
    def stage(self) -> str | Promise:
        stage = str(self._said.get("stage", ""))
        return _("making the model") if stage == "loading" and self.is_from_nothing else STAGES.get(stage, "")

    @property
    def step(self) -> int:
        return int(self.events[-1]["step"]) if self.events else 0

    @cached_property
    def steps(self) -> int:
        """Of the whole run; 0 while nobody knows."""
        if known := self.job.result.get("steps") or self._said.get("steps"):
            return int(known)
        recorded = next((segment.events[-1]["step"] for segment in reversed(self.segments) if segment.events), 0)
        return round(recorded / self.job.done) if recorded and self.job.done else 0

    @property
    def percent(self) -> int:
        if self.job.state == State.SUCCEEDED:
            return 100
        return int(100 * self.step / self.steps) if self.steps else int(100 * self.job.done)

    @property
    def tens(self) -> int:
        """The percentage in steps of ten, for those who hear it: said ten times, not a hundred."""
        return self.percent // 10 * 10

    @property
    def epoch(self) -> int:
        epochs = int(self.job.params.get("settings", {}).get("epochs", 1))
        return min(int(self.step * epochs / self.steps) + 1, epochs) if self.steps else 1

    @property
    def left_s(self) -> float | None:
        """Seconds of training left at the pace of the last segments; None while there is no pace."""
        timed = self.segments[-5:]
        if self.job.state != State.RUNNING or len(timed) < 2 or not self.steps:
            return None
        first, last = timed[0], timed[-1]
        steps = (last.events[-1]["step"] - first.events[-1]["step"]) if first.events and last.events else 0
        seconds = (last.created_at - first.created_at).total_seconds()
        return (self.steps - self.step) * seconds / steps if steps > 0 and seconds > 0 else None

    @property
    def saved_step(self) -> int:
        return next((segment.events[-1]["step"] for segment in reversed(self.segments) if segment.events), 0)

    @cached_property
    def curve(self) -> Curve | None:
        return curve(self.events, self.steps or self.step)

    @cached_property
    def last(self) -> Mapping[str, Any]:
        return next((event for event in reversed(self.events) if "loss" in event), {})

    @cached_property
    def first(self) -> Mapping[str, Any]:
        return next((event for event in self.events if "loss" in event), {})

    @cached_property
    def held_out(self) -> Mapping[str, Any]:
        """The step at which the held-out loss was least, of those trained."""
        measured = [event for event in self.events if "validation_loss" in event and event["step"] > 0]
        return min(measured, key=lambda event: event["validation_loss"], default={})

    @cached_property
    def asked(self) -> list[Asked]:
        return list(asked(self.events, from_nothing=self.is_from_nothing))

    @property
    def unasked(self) -> list[str]:
        return next((event["unasked"] for event in self.events if "unasked" in event), [])

    @property
    def preferred_percent(self) -> int:
        """Of the held-out pairs, at the step of `held_out`: those whose chosen answer the model has come to prefer."""
        return round(100 * float(self.held_out["validation_accuracy"]))

    @cached_property
    def base_loss(self) -> float | None:
        return next((event["validation_loss"] for event in self.events if event["step"] == 0 and "validation_loss" in event), None)

    @property
    def learning_rate(self) -> str:
        return scientific(self.last["learning_rate"]) if "learning_rate" in self.last else "–"

    @property
    def peak_rate(self) -> str:
        return scientific(float(self.job.params["settings"].get("learning_rate", 0)))

    @property
    def cost_micro(self) -> int:
        return price_micro(self.steps or self.step)

    # ------------------------------------------------------------ words

    @property
    def badge(self) -> tuple[str, str]:
        return BADGES[State(self.job.state)]

    @property
    def failure(self) -> str:
        if self.job.state != State.FAILED:
            return ""
        if self.job.error_code == "predecessor_failed" and self.validation is not None:
            return problems.failure(self.validation.error_code, self.validation.error, self.validation.error_detail)
        return problems.failure(self.job.error_code, self.job.error, self.job.error_detail)

    @property
    def problems(self) -> list[problems.Shown]:
        return [problems.shown(problem) for problem in self.report.get("problems", [])]

    @property
    def contents(self) -> Contents:
        return Contents(self.report)

    @property
    def timeline(self) -> list[Happened]:
        rows = self.job.events.order_by("-id")[:TIMELINE_ROWS]
        return [Happened(HAPPENED.get(row.kind, row.kind), row.created_at, str(row.detail.get("worker", ""))) for row in rows]

    @property
    def stages(self) -> list[Step]:
        state, begun = self.job.state, self.job.started_at is not None
        checked = bool(self.report.get("valid")) or self.validation is None
        training = begun and state not in (State.SUCCEEDED,)
        data = [Step(_("Data"), self._data_note(), "done" if checked else "current")] if self.validation is not None else []
        return [
            *data,
            Step(_("Queue"), self._queue_note(), "done" if begun else "current" if checked else ""),
            Step(_("Train"), self._train_note(), "done" if state == State.SUCCEEDED else "current" if training else ""),
            Step(
                _("Draft version"),
                self.version.number if self.version else _("you publish it"),
                "done" if self.version else "current" if state == State.SUCCEEDED else "",
            ),
        ]

    def _data_note(self) -> str | Promise:
        if not self.report:
            return _("being checked")
        if self.report["error_count"]:
            errors = self.report["error_count"]
            return ngettext("%(count)s error", "%(count)s errors", errors) % {"count": errors}
        count = self.report["examples"]
        return ngettext("%(count)s example", "%(count)s examples", count) % {"count": count}

    def _queue_note(self) -> str | Promise:
        return _("waiting for a worker") if self.job.state == State.QUEUED else ""

    def _train_note(self) -> str:
        if not self.steps:
            return ""
        return gettext("step %(step)s of %(steps)s") % {"step": self.step, "steps": self.steps}


def scientific(value: float) -> str:
    """0.00011 → 1.1e−4"""
    digits, _e, power = f"{value:.1e}".partition("e")
    return f"{digits}e{int(power)}".replace("-", "−")


def rows(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """Fine-tunes for a list, with their bases by name, in a constant number of queries."""
    bases = {
        version.public_id: version
        for version in Version.objects.filter(public_id__in={job.subject for job in jobs}).select_related("listing__publisher")
    }
    found = []
    for job in jobs:
        css, icon = BADGES[State(job.state)]
        found.append({"job": job, "base": bases.get(job.subject), "css": css, "icon": icon, "percent": int(100 * job.done)})
    return found
