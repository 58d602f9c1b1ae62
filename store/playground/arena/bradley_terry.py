"""Strengths from pairwise votes, with their uncertainty.

The model is Bradley and Terry's (1952, "Rank analysis of incomplete block designs: I. The method of paired comparisons",
Biometrika 39): i is preferred to j with the probability 1 / (1 + exp(θj − θi)). A tie is half a win for either, as Chatbot Arena
counts it (Chiang et al. 2024, arXiv:2403.04132).

The likelihood alone has a maximum only where everybody is beaten by somebody, also by a detour (Ford 1957, "Solution of a ranking
problem from binary comparisons", Am. Math. Monthly 64). So each θ has the prior N(0, PRIOR_SD²), worth about one vote: with
few votes it draws towards the middle, with many it does nothing. The sum is concave and is climbed by Newton's method. The
covariance is the inverse of the information matrix there. Since only differences say something, every θ is told less the mean of all,
each counted by its votes: so a newcomer, of whom little is known, moves nobody and widens nobody's interval.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

PRIOR_SD = 2.0  # of θ: one standard deviation above the middle wins 88 % against it
MIDDLE = 1000.0
POINTS = 400.0 / math.log(10)  # for one of θ: who is 400 points ahead wins ten times for one, as with Elo
Z_95 = 1.959964  # of the normal distribution: 95 % lie within so many standard errors
STEPS = 100
LONGEST_STEP = 2.0  # of any θ, so that Newton's method does not overshoot
CLOSE_ENOUGH = 1e-9

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Fit:
    """Ratings in points around MIDDLE, and half the width of their 95 % intervals."""

    ratings: Array  # [contenders]
    margins: Array  # [contenders]


def fit(wins: Array, *, prior_sd: float = PRIOR_SD) -> Fit:
    """`wins[i, j]`: how often i was preferred to j, a tie counting half for either.  # [contenders, contenders], not all zero"""
    met = wins + wins.T
    won = wins.sum(axis=1)
    strengths = np.zeros(len(wins))
    for _ in range(STEPS):
        expected = _expected(strengths)
        slope = won - (met * expected).sum(axis=1) - strengths / prior_sd**2
        step = np.linalg.solve(_information(met, expected, prior_sd), slope)
        step *= min(1.0, LONGEST_STEP / max(float(np.abs(step).max()), CLOSE_ENOUGH))
        strengths += step
        if np.abs(step).max() < CLOSE_ENOUGH:
            break
    centre = np.eye(len(wins)) - met.sum(axis=1) / met.sum()  # takes the mean by votes away
    covariance = centre @ np.linalg.inv(_information(met, _expected(strengths), prior_sd)) @ centre.T
    return Fit(MIDDLE + POINTS * (centre @ strengths), POINTS * Z_95 * np.sqrt(np.diag(covariance)))


def _expected(strengths: Array) -> Array:
    """How likely each is preferred to each.  # [contenders, contenders]"""
    return 0.5 * (1.0 + np.tanh(0.5 * (strengths[:, None] - strengths[None, :])))  # the logistic function, without overflow


def _information(met: Array, expected: Array, prior_sd: float) -> Array:
    weights = met * expected * (1.0 - expected)
    np.fill_diagonal(weights, 0.0)
    information: Array = np.diag(weights.sum(axis=1) + 1.0 / prior_sd**2) - weights
    return information
