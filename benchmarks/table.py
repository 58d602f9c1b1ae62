"""Results as text: one line a comparison, medians of figures and of the ratios within each run."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.measures import Sample
from benchmarks.rows import Compare, Goal, Row
from benchmarks.sides import NATIVE, OURS, PURE

HEAD = ("work", "ours in", "pure torch", "with compiler", "compared with", "its figure", "pure torch: ratio", "with compiler: ratio", "aim")
NOTHING = "–"
NOBODY = "nobody"  # took part beside this project's sides
EXTRAS = {"added_ms": "{:+.1f} ms a step", "failed": "{:.0f} failed", "distinct": "{:.0f} distinct"}
WORST = {"failed"}  # of the runs, where a median would hide it


@dataclass
class Result:
    """What a row's sides did, run by run, and why others did nothing."""

    row: Row
    samples: dict[str, list[Sample]] = field(default_factory=dict)  # by the side's key
    absent: dict[str, str] = field(default_factory=dict)
    versions: dict[str, dict[str, str]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {"row": self.row.name, "samples": self.samples, "absent": self.absent, "versions": self.versions}


def median(samples: Sequence[Sample], name: str = "value") -> float:
    """Of the runs that gave a number; the worst of them for what must never happen."""
    numbers = [sample[name] for sample in samples if name in sample and not math.isnan(sample[name])]
    if not numbers:
        return math.nan
    return max(numbers) if name in WORST else statistics.median(numbers)


def ratio(row: Row, ours: Sequence[Sample], peer: Sequence[Sample]) -> float:
    """The median of the runs' ratios, above 1 where ours is better."""
    pairs = zip(ours, peer, strict=False)
    over = [b["value"] / a["value"] if row.compare is Compare.TIME else a["value"] / b["value"] for a, b in pairs]
    over = [number for number in over if not math.isnan(number)]
    return statistics.median(over) if over else math.nan


def lines_of(result: Result) -> list[tuple[str, ...]]:
    """The table's lines for one row."""
    lines = []
    for dtype in dict.fromkeys(key.rpartition("/")[2] for key in (*result.samples, *result.absent) if key.startswith(OURS)):
        ours = {column: result.samples.get(f"{OURS}/{column}/{dtype}", []) for column in (PURE, NATIVE)}
        figures = [_figure(result.row, ours[column]) for column in (PURE, NATIVE)]
        for peer in _compared(result):
            goal = next((goal for goal in result.row.goals if peer.startswith(goal.peer)), Goal(peer))
            ratios = [_ratio(result.row, goal, column, ours[column], result.samples.get(peer, [])) for column in (PURE, NATIVE)]
            lines.append((result.row.title, dtype, *figures, *_peer(result, peer, ours), *ratios, _number(goal.aim)))
    return lines


def markdown(results: Sequence[Result]) -> str:
    lines = [HEAD, tuple("---" for _ in HEAD), *(line for result in results for line in lines_of(result))]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    absent = [f"- {result.row.title}: {key}: {reason}" for result in results for key, reason in result.absent.items()]
    return "\n\n".join([text, *(["Not measured:\n" + "\n".join(absent)] if absent else [])])


def _compared(result: Result) -> list[str]:
    """Keys of those a row is compared with: its own where it says so, then every peer that was measured or should have been."""
    own = ["own"] if any(goal.peer == "own" for goal in result.row.goals) else []
    peers = [key for key in (*result.samples, *result.absent) if not key.startswith(OURS)]
    return own + sorted(peers, key=lambda key: [f"{name}/{dtype}" for name, dtype in result.row.peers].index(key)) or [NOBODY]


def _peer(result: Result, peer: str, ours: dict[str, list[Sample]]) -> tuple[str, str]:
    if peer == "own":
        figures = [_number(median(samples, "own")) if samples else NOTHING for samples in ours.values()]
        return result.row.own, " / ".join(figures)
    if peer == NOBODY:
        return NOTHING, NOTHING
    name = peer.replace("/", " ")
    if peer in result.absent:
        return name, "did not run"
    kept = f"keeps {_number(median(result.samples[peer]))}, " if result.row.compare is Compare.SHARE else ""
    return name, kept + _figure(result.row, result.samples[peer])


def _figure(row: Row, samples: Sequence[Sample]) -> str:
    """A median with its unit, and what else the row says."""
    if not samples:
        return NOTHING
    shown = median(samples, row.shown)
    said = [_number(shown) if math.isnan(shown) else f"{_number(shown)} {row.unit}"]
    for name, words in EXTRAS.items():
        if not math.isnan(extra := median(samples, name)):
            said.append(words.format(extra))
    return ", ".join(said)


def _ratio(row: Row, goal: Goal, column: str, ours: Sequence[Sample], peer: Sequence[Sample]) -> str:
    """The ratio with what it must be, and whether it is."""
    if not ours or (goal.peer != "own" and not peer):
        return NOTHING
    reached = median(ours) if goal.peer == "own" else ratio(row, ours, peer)
    must = goal.pure if column == PURE else goal.native
    if must is None:
        return _number(reached)
    relation, met = {
        Compare.LIMIT: ("≤", reached <= must),
        Compare.NEAR: ("±", abs(reached - 1) <= must),
    }.get(row.compare, ("≥", reached >= must))
    met = met and all(median(ours, name) <= most for of, name, most in goal.most if of == column)
    return f"{_number(reached)} ({relation} {must:g}{'' if met else ', missed'})"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    if math.isnan(value):
        return "no number"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
