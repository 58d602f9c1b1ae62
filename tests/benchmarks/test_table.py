from __future__ import annotations

from dataclasses import replace

from benchmarks.rows import ROWS
from benchmarks.table import Result, lines_of, markdown

ROW = {row.name: row for row in ROWS}


def test_a_ratio_is_the_median_of_the_runs_ratios_and_not_the_ratio_of_the_medians() -> None:
    result = Result(ROW["int8"])
    result.samples["ours/native/int8"] = [{"value": 10.0}, {"value": 90.0}, {"value": 40.0}]
    result.samples["llama.cpp/Q8_0"] = [{"value": 20.0}, {"value": 30.0}, {"value": 50.0}]

    ((_, dtype, pure, native, peer, figure, pure_ratio, native_ratio, aim),) = lines_of(result)

    assert (dtype, pure, native) == ("int8", "–", "40.0 tok/s")
    assert (peer, figure) == ("llama.cpp Q8_0", "30.0 tok/s")
    assert (pure_ratio, native_ratio, aim) == ("–", "0.80 (≥ 1, missed)", "1.50")


def test_for_times_a_ratio_above_one_is_the_faster_one() -> None:
    result = Result(replace(ROW["prefill"], dtypes=("float32",)))
    result.samples["ours/pure/float32"] = [{"value": 200.0}]
    result.samples["transformers/float32"] = [{"value": 300.0}]

    assert [line[6] for line in lines_of(result)] == ["1.50 (≥ 1.25)"]


def test_one_failed_request_in_one_run_misses_the_goal_though_the_share_is_reached() -> None:
    well = {"value": 0.9, "own": 100.0, "mixed": 90.0, "failed": 0.0, "distinct": 120.0}
    result = Result(ROW["many_adapters"])
    result.samples["ours/pure/float32"] = [well, well, well]
    result.samples["ours/native/float32"] = [well, {**well, "failed": 1.0}, well]

    ((_, _, pure, native, own, figure, pure_ratio, native_ratio, _),) = lines_of(result)

    assert pure == "90.0 tok/s, 0 failed, 120 distinct"
    assert native == "90.0 tok/s, 1 failed, 120 distinct"
    assert (own, figure) == ("own one adapter, tok/s", "100 / 100")
    assert (pure_ratio, native_ratio) == ("0.90 (≥ 0.5)", "0.90 (≥ 0.6, missed)")


def test_too_many_milliseconds_a_step_miss_the_goal_of_adapters_with_the_compiler_only() -> None:
    sample = {"value": 0.75, "own": 400.0, "mixed": 300.0, "added_ms": 26.7}
    result = Result(ROW["adapters"])
    result.samples["ours/pure/float32"] = result.samples["ours/native/float32"] = [sample]

    ((*_, pure_ratio, native_ratio, _),) = lines_of(result)

    assert (pure_ratio, native_ratio) == ("0.75 (≥ 0.6)", "0.75 (≥ 0.7, missed)")


def test_a_peer_that_did_not_run_stands_in_the_table_and_below_it_with_its_reason() -> None:
    result = Result(ROW["int8"])
    result.samples["ours/native/int8"] = [{"value": 10.0}]
    result.absent["llama.cpp/Q8_0"] = "its process was killed by SIGILL"

    text = markdown([result])

    assert "| one stream, int8 | int8 | – | 10.0 tok/s | llama.cpp Q8_0 | did not run | – | – | 1.50 |" in text
    assert "Not measured:\n- one stream, int8: llama.cpp/Q8_0: its process was killed by SIGILL" in text


def test_what_gave_no_number_reaches_no_goal() -> None:
    result = Result(ROW["int8"])
    result.samples["ours/native/int8"] = [{"value": float("nan")}]
    result.samples["llama.cpp/Q8_0"] = [{"value": 30.0}]

    ((*_, native, _, _, _, native_ratio, _),) = lines_of(result)
    assert (native, native_ratio) == ("no number", "no number (≥ 1, missed)")
