"""The loss curve: its axes are round, its points lie inside, and it says its result in words."""

from __future__ import annotations

import re

import pytest
from django.utils.translation import override
from hypothesis import given
from hypothesis import strategies as st

from store.jobs.curves import DRAWN_POINTS, curve, loss, scale, smoothed, thinned


def run(steps: int, *, every: int = 10) -> list[dict[str, float]]:
    found: list[dict[str, float]] = [{"step": 0, "validation_loss": 3.0}]
    for step in range(1, steps + 1):
        event: dict[str, float] = {"step": step, "loss": 3.0 - step / steps}
        found.append(event | ({"validation_loss": 3.1 - step / steps} if step % every == 0 else {}))
    return found


def test_there_is_no_curve_before_the_first_step() -> None:
    assert curve([], 10) is None
    assert curve([{"step": 0, "validation_loss": 3.0}], 10) is None


@override("en")
def test_the_curve_says_its_result_and_draws_what_is_still_to_come() -> None:
    found = curve(run(50), 100)

    assert found is not None
    wide, narrow = found.plots
    assert found.label == "Training loss went from 2.98 to 2.00 in 50 of 100 steps; held-out loss from 3.00 to 2.10."
    assert (wide.css, narrow.css) == ("", "narrow")
    assert (wide.todo_x, wide.todo_width) == ((wide.left + wide.right) / 2, (wide.right - wide.left) / 2)
    assert [dot.best for dot in wide.dots] == [False] * 5 + [True]
    assert [tick.label for tick in wide.x_ticks] == ["0", "20", "40", "60", "80", "100"]


@pytest.mark.parametrize("steps", [1, 2, 7, 2000])
def test_every_point_lies_inside_and_a_long_run_is_thinned(steps: int) -> None:
    found = curve(run(steps), steps)

    assert found is not None
    for plot in found.plots:
        numbers = [float(value) for value in re.findall(r"[\d.]+", plot.raw)]
        assert len(numbers) <= 2 * (DRAWN_POINTS + 1)
        assert all(plot.left <= x <= plot.right for x in numbers[::2])
        assert all(plot.top <= y <= plot.bottom for y in numbers[1::2])


@pytest.mark.parametrize("last", [(0.0, 0.0), (3.0, 3.0), (1.5, 1.5), (0.0, 0.05), (3.0, 2.9), (2.0, 0.5)])
def test_the_last_numbers_stand_inside_and_apart(last: tuple[float, float]) -> None:
    loss_at_the_end, held_out = last
    begun = [{"step": 0, "validation_loss": 3.0}, {"step": 1, "loss": 3.0}, {"step": 2, "loss": 0.0}]
    found = curve([*begun, *({"step": n, "loss": loss_at_the_end, "validation_loss": held_out} for n in range(3, 60))], 60)

    assert found is not None
    for plot in found.plots:
        own, other = plot.labels
        assert abs(own.y - other.y) >= 16
        assert all(plot.top < label.y < plot.bottom for label in plot.labels)


@given(st.floats(0, 50), st.floats(0, 50))
def test_the_scale_holds_its_values_in_a_handful_of_round_steps(one: float, other: float) -> None:
    low, high, every = scale(min(one, other), max(one, other))

    assert low <= min(one, other) + 1e-9
    assert high >= max(one, other) - 1e-9
    assert 1 <= round((high - low) / every) <= 6


def test_the_axis_of_a_single_loss_names_different_numbers() -> None:
    found = curve([{"step": 1, "loss": 2.0}], 1)

    assert found is not None
    for plot in found.plots:
        labels = [tick.label for tick in plot.y_ticks]
        assert labels == ["1.990", "1.995", "2.000", "2.005", "2.010"]


def test_a_loss_is_rounded_and_never_a_negative_nothing() -> None:
    assert (loss(2.999), loss(1.994), loss(-0.001)) == ("3.00", "1.99", "0.00")


def test_the_smooth_line_begins_at_the_first_value() -> None:
    assert smoothed([(1, 4.0), (2, 4.0)]) == [(1, pytest.approx(4.0)), (2, pytest.approx(4.0))]
    assert thinned([(1, 4.0)]) == [(1.0, 4.0)]
