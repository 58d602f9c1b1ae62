"""The points of a run at which people can look: what the model answered there, and the adapter or the model as it was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _

from store.jobs.curves import loss
from store.jobs.models import Job


@dataclass(frozen=True)
class Checkpoint:
    step: int  # 0: before the first
    held_out_loss: float | None
    samples: tuple[str, ...] = ()  # one for each prompt
    snapshot: str = ""  # digest of the manifest of the adapter or the model; of what it began with there is none
    is_best: bool = False
    from_nothing: bool = False  # it began with random weights, else with a base

    @property
    def label(self) -> str:
        if self.step == 0:
            return _("Before training") if self.from_nothing else _("Base")
        return _("Step %(step)s") % {"step": self.step}

    @property
    def choice(self) -> str:
        """As one of several of which a version can be made."""
        told = self.label if self.held_out_loss is None else f"{self.label} · {_('held-out loss')} {loss(self.held_out_loss)}"
        return f"{told} · {_('best')}" if self.is_best else told


@dataclass(frozen=True)
class Asked:
    """A prompt and what was answered to it, from before the first step to the newest checkpoint."""

    prompt: str
    answers: tuple[tuple[Checkpoint, str], ...]

    @property
    def foremost(self) -> list[tuple[Checkpoint, str]]:
        """The first answer, the best's and the newest one."""
        return [(at, text) for number, (at, text) in enumerate(self.answers) if number in (0, len(self.answers) - 1) or at.is_best]


def checkpoints(events: Sequence[Mapping[str, Any]], *, from_nothing: bool = False) -> list[Checkpoint]:
    """In the order of their steps. The best had the least held-out loss; where nothing was held out there is none."""
    shown = [event for event in events if "samples" in event]
    trained = [event for event in shown if event["step"] > 0]
    measured = [event for event in trained if "validation_loss" in event]
    best = min(measured, key=lambda event: event["validation_loss"], default=None)
    return [
        Checkpoint(
            step=event["step"],
            held_out_loss=event.get("validation_loss"),
            samples=tuple(event["samples"]),
            snapshot=event.get("snapshot", ""),
            is_best=event is best,
            from_nothing=from_nothing,
        )
        for event in shown
    ]


def asked(events: Sequence[Mapping[str, Any]], *, from_nothing: bool = False) -> Iterator[Asked]:
    prompts: list[str] = next((event["prompts"] for event in events if "prompts" in event), [])
    points = checkpoints(events, from_nothing=from_nothing)
    for number, prompt in enumerate(prompts):
        yield Asked(prompt, tuple((point, point.samples[number]) for point in points if number < len(point.samples)))


def publishable(events: Sequence[Mapping[str, Any]]) -> list[Checkpoint]:
    """Those of which a version can be made."""
    return [point for point in checkpoints(events) if point.snapshot]


def recorded(job: Job) -> list[Checkpoint]:
    """The same, of the segments that became current."""
    return publishable([event for events in job.segments.order_by("number").values_list("events", flat=True) for event in events])
