"""The loss curve of a fine-tune as the coordinates of an SVG, in two sizes of which the page shows the one that fits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.utils.formats import number_format
from django.utils.translation import gettext as _

DRAWN_POINTS = 240
SMOOTHING = 0.85  # of a running mean, begun without bias
LABEL_GAP = 14
LABEL_LINE = 16  # from one label's baseline to the next
NARROWEST = 0.02  # what the scale shows at least, from its lowest to its highest


@dataclass(frozen=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True)
class Dot:
    x: float
    y: float
    best: bool = False


@dataclass(frozen=True)
class Label:
    x: float
    y: float
    text: str
    anchor: str  # start | end


@dataclass(frozen=True)
class Plot:
    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int
    css: str = ""
    raw: str = ""
    line: str = ""
    held_out: str = ""
    dots: tuple[Dot, ...] = ()
    head: Dot | None = None
    todo_x: float = 0.0
    todo_width: float = 0.0
    x_ticks: tuple[Tick, ...] = ()
    y_ticks: tuple[Tick, ...] = ()
    labels: tuple[Label, ...] = ()

    @property
    def plot_height(self) -> int:
        return self.bottom - self.top


@dataclass(frozen=True)
class Curve:
    label: str  # the result in a sentence
    plots: tuple[Plot, ...]


@dataclass
class Points:
    """The numbers of a run by step."""

    training: list[tuple[int, float]] = field(default_factory=list)
    held_out: list[tuple[int, float]] = field(default_factory=list)

    @classmethod
    def of(cls, events: Sequence[Mapping[str, Any]]) -> Points:
        points = cls()
        for event in events:
            if isinstance(event.get("loss"), float | int):
                points.training.append((event["step"], float(event["loss"])))
            if isinstance(event.get("validation_loss"), float | int):
                points.held_out.append((event["step"], float(event["validation_loss"])))
        return points


def curve(events: Sequence[Mapping[str, Any]], steps: int) -> Curve | None:
    """None while there is nothing to draw."""
    points = Points.of(events)
    if not points.training:
        return None
    sizes = (Plot(720, 260, 40, 706, 12, 228), Plot(300, 210, 40, 286, 12, 178, css="narrow"))
    return Curve(_sentence(points, steps), tuple(_drawn(size, points, max(steps, points.training[-1][0])) for size in sizes))


def loss(value: float) -> str:
    return _rounded(value, 2)


def _rounded(value: float, decimals: int) -> str:
    """`number_format` itself cuts digits off."""
    return number_format(round(value, decimals) + 0.0, decimals)


def _sentence(points: Points, steps: int) -> str:
    values = {
        "first": loss(points.training[0][1]),
        "last": loss(points.training[-1][1]),
        "step": points.training[-1][0],
        "steps": steps,
    }
    if not points.held_out:
        return _("Training loss went from %(first)s to %(last)s in %(step)s of %(steps)s steps.") % values
    values |= {"held_first": loss(points.held_out[0][1]), "held_last": loss(points.held_out[-1][1])}
    return (
        _(
            "Training loss went from %(first)s to %(last)s in %(step)s of %(steps)s steps; "
            "held-out loss from %(held_first)s to %(held_last)s."
        )
        % values
    )


def _drawn(size: Plot, points: Points, steps: int) -> Plot:
    smooth = smoothed(points.training)
    values = [value for _step, value in [*points.training, *points.held_out]]
    low, high, every = scale(min(values), max(values))
    span = size.right - size.left

    def place(step: float, value: float) -> tuple[float, float]:
        share = (value - low) / (high - low)
        return round(size.left + span * step / steps, 1), round(size.bottom - (size.bottom - size.top) * share, 1)

    held = [place(*point) for point in points.held_out]
    best = min(range(len(held)), key=lambda n: points.held_out[n][1]) if held else -1
    end = place(*smooth[-1])
    decimals = 3 if every < 0.01 else 2 if every < 0.1 else 1
    return Plot(
        **{name: getattr(size, name) for name in ("width", "height", "left", "right", "top", "bottom", "css")},
        raw=path([place(*point) for point in thinned(points.training)]),
        line=path([place(*point) for point in thinned(smooth)]),
        held_out=path(held),
        dots=tuple(Dot(x, y, best=n == best) for n, (x, y) in enumerate(held)),
        head=Dot(*end),
        todo_x=end[0],
        todo_width=round(size.right - end[0], 1),
        x_ticks=_steps_axis(size, steps),
        y_ticks=tuple(Tick(place(0, value)[1], _rounded(value, decimals)) for value in _values(low, high, every)),
        labels=_labels(size, points, end, held[-1] if held else None),
    )


def _labels(size: Plot, points: Points, end: tuple[float, float], held: tuple[float, float] | None) -> tuple[Label, ...]:
    """The last numbers beside their points, a line apart from each other, on the side where there is room."""
    training = _("training %(loss)s") % {"loss": loss(points.training[-1][1])}
    highest, lowest = size.top + 10.0, size.bottom - 4.0
    if held is None:
        return (_label(size, end[0], min(max(end[1] + LABEL_GAP, highest), lowest), training),)
    said = _("held-out %(loss)s") % {"loss": loss(points.held_out[-1][1])}
    is_held_above = held[1] <= end[1]
    upper, lower = (held[1], end[1]) if is_held_above else (end[1], held[1])
    low_y = min(max(lower + LABEL_GAP, highest + LABEL_LINE), lowest)
    high_y = min(max(upper - LABEL_GAP + 4, highest), low_y - LABEL_LINE)
    own_y, held_y = (low_y, high_y) if is_held_above else (high_y, low_y)
    return _label(size, end[0], own_y, training), _label(size, held[0], held_y, said)


def _label(size: Plot, x: float, y: float, text: str) -> Label:
    room = size.right - x > 110
    return Label(round(x + 8 if room else x - 8, 1), round(y, 1), text, "start" if room else "end")


def smoothed(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """An exponential mean whose start is not drawn towards zero."""
    mean, weight, found = 0.0, 0.0, []
    for step, value in points:
        mean = SMOOTHING * mean + (1 - SMOOTHING) * value
        weight = SMOOTHING * weight + (1 - SMOOTHING)
        found.append((step, mean / weight))
    return found


def thinned(points: Sequence[tuple[int, float]]) -> list[tuple[float, float]]:
    """At most DRAWN_POINTS, each the mean of its neighbours; the last stays what it is."""
    if len(points) <= DRAWN_POINTS:
        return [(float(step), value) for step, value in points]
    size = math.ceil(len(points) / (DRAWN_POINTS - 1))
    groups = [points[at : at + size] for at in range(0, len(points), size)]
    means = [(sum(s for s, _v in group) / len(group), sum(v for _s, v in group) / len(group)) for group in groups]
    return [*means, (float(points[-1][0]), points[-1][1])]


def path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + " ".join(f"{x} {y}" for x, y in points) if len(points) > 1 else ""


def scale(low: float, high: float) -> tuple[float, float, float]:
    """(lowest, highest, distance) of round values that hold `low` and `high`, about four of them."""
    if high - low < NARROWEST:
        low, high = (low + high - NARROWEST) / 2, (low + high + NARROWEST) / 2
    rough = (high - low) / 4
    power = 10 ** math.floor(math.log10(rough))
    every = next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= rough)
    lowest = math.floor(low / every) * every
    highest = math.ceil(high / every) * every
    return lowest, highest if highest > lowest else lowest + every, every


def _values(low: float, high: float, every: float) -> list[float]:
    return [low + every * n for n in range(round((high - low) / every) + 1)]


def _steps_axis(size: Plot, steps: int) -> tuple[Tick, ...]:
    parts = 6 if size.width > 400 else 3
    every = max(1, math.ceil(steps / parts))
    power = 10 ** math.floor(math.log10(every))
    every = next(math.ceil(step * power) for step in (1, 2, 5, 10) if step * power >= every)
    span = size.right - size.left
    return tuple(
        Tick(round(size.left + span * step / steps, 1), number_format(step, use_l10n=True, force_grouping=True))
        for step in range(0, steps + 1, every)
    )
