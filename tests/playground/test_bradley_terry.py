"""The ratings of the arena against what is known of them: closed forms, symmetry, and intervals that cover the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from store.playground.arena.bradley_terry import MIDDLE, POINTS, Z_95, fit

FLAT = 1e3  # a prior that says nothing


def test_two_contenders_differ_by_the_log_odds_with_its_standard_error() -> None:
    found = fit(np.array([[0.0, 30.0], [10.0, 0.0]]), prior_sd=FLAT)

    assert found.ratings[0] - found.ratings[1] == pytest.approx(POINTS * math.log(3))
    assert found.margins == pytest.approx([POINTS * Z_95 / 2 / math.sqrt(40 * 0.75 * 0.25)] * 2)  # each is half the difference


def test_ten_wins_for_one_are_400_points_and_the_middle_is_1000() -> None:
    found = fit(np.array([[0.0, 10.0], [1.0, 0.0]]), prior_sd=FLAT)

    assert found.ratings[0] - found.ratings[1] == pytest.approx(400)
    assert found.ratings.mean() == pytest.approx(MIDDLE)


def test_who_only_won_has_a_finite_rating_and_a_wide_interval() -> None:
    found = fit(np.array([[0.0, 3.0, 2.0], [0.0, 0.0, 5.0], [0.0, 5.0, 0.0]]))

    assert MIDDLE + 100 < found.ratings[0] < MIDDLE + 800
    assert found.margins[0] > found.margins[1] > 100


def test_a_contender_that_met_only_one_is_rated_through_it() -> None:
    chain = np.array([[0.0, 75.0, 0.0], [25.0, 0.0, 75.0], [0.0, 25.0, 0.0]])

    found = fit(chain, prior_sd=FLAT)

    assert found.ratings[0] - found.ratings[2] == pytest.approx(2 * POINTS * math.log(3))


def test_a_newcomer_moves_nobody_and_widens_no_interval() -> None:
    known = np.array([[0.0, 60.0], [40.0, 0.0]])
    joined = np.zeros((3, 3))
    joined[:2, :2], joined[2, 0] = known, 2.0

    alone, together = fit(known), fit(joined)

    assert together.ratings[:2] == pytest.approx(alone.ratings, abs=12)
    assert together.margins[:2] == pytest.approx(alone.margins, rel=0.1)
    assert together.margins[2] > 3 * together.margins[0]


def test_many_one_sided_votes_do_not_throw_it_off() -> None:
    ladder = np.zeros((40, 40))
    for better in range(39):
        ladder[better, better + 1] = 100_000.0

    found = fit(ladder)

    assert np.isfinite(found.ratings).all()
    assert (np.diff(found.ratings) < 0).all()


def test_19_of_20_intervals_hold_the_truth() -> None:
    rng = np.random.default_rng(7)
    truth = np.array([-1.0, -0.4, 0.0, 0.5, 0.9])
    chance = 1 / (1 + np.exp(truth[None, :] - truth[:, None]))
    held = []
    for _ in range(200):
        upper = np.triu(rng.binomial(40, chance), k=1)
        wins = upper + np.triu(40 - upper, k=1).T
        found = fit(wins.astype(float))
        held.append(np.abs(found.ratings - (MIDDLE + POINTS * (truth - truth.mean()))) <= found.margins)

    assert 0.93 <= np.mean(held) <= 0.97
