"""What the benchmark of jobs reads from what a store and its workers said."""

from __future__ import annotations

import pytest

from benchmarks.job_overhead import Entry, stages, table

CHECK: list[Entry] = [
    (100.02, {"type": "state", "kind": "queued"}),
    (100.10, {"type": "state", "kind": "claimed"}),
    (100.30, {"type": "progress", "stage": "validating"}),
    (100.90, {"type": "state", "kind": "succeeded"}),
]
JOB: list[Entry] = [
    (100.02, {"type": "state", "kind": "waiting"}),
    (100.91, {"type": "state", "kind": "queued"}),
    (101.00, {"type": "state", "kind": "claimed"}),
    (101.10, {"type": "progress", "stage": "fetching"}),
    (101.20, {"type": "progress", "stage": "reading"}),
    (101.50, {"type": "progress", "stage": "loading"}),
    (103.50, {"type": "progress", "stage": "validating", "step": 0}),
    (107.50, {"type": "progress", "stage": "answering", "step": 0}),
    (108.50, {"type": "progress", "stage": "training", "step": 0}),
    (109.00, {"type": "progress", "stage": "training", "step": 1}),
]


def test_the_stages_end_where_the_first_step_is_done() -> None:
    found = stages(100.0, 100.03, CHECK, JOB)

    expected = {"submit": 0.03, "check_queued": 0.07, "check": 0.8, "queued": 0.1, "reading": 0.5, "loading": 2.0, "stepping": 5.0}
    assert found == pytest.approx(expected)


def test_the_overhead_is_told_without_the_work_and_beside_it() -> None:
    told = table([stages(100.0, 100.03, CHECK, JOB)])

    assert "| until the first step is done | 8.50 | |" in told
    assert "| beyond loading the base | 6.50 | |" in told
    assert "| **overhead**, beyond all work | 1.50 | wanted: under 2 |" in told
